"""The client has the methods of the library, or a reason not to."""

import inspect
from types import FunctionType

import pytest

from cas.app import Case
from cas.containerd.events import Events
from cas.pull.pull import Pull
from cas.rpc.client import Client
from cas.rpc.client.account import UsageClient, WhyClient
from cas.rpc.client.blobs import BlobsClient
from cas.rpc.client.events import EventsClient
from cas.rpc.client.images import ImagesClient
from cas.rpc.client.prune import PruneClient
from cas.rpc.client.volume_snapshots import VolumeSnapshotsClient
from cas.rpc.client.volumes import VolumesClient
from cas.store.account.usage import Usage
from cas.store.account.why import Why
from cas.store.content.blobs import Blobs
from cas.store.image.images import Images
from cas.store.prune.prune import Prune
from cas.volumes.snapshots import VolumeSnapshots
from cas.volumes.volumes import Volumes

_PAIRS = (
    (Case, Client),
    (Blobs, BlobsClient),
    (Images, ImagesClient),
    (Volumes, VolumesClient),
    (VolumeSnapshots, VolumeSnapshotsClient),
    (Prune, PruneClient),
    (Usage, UsageClient),
    (Why, WhyClient),
    (Events, EventsClient),
)
_LACKING = {
    "Case.open": "Client.connect",
    "Case.now": "the clock of whoever asks",
    "Case.check": "check_store",
    "Case.repair": "check_store with fix",
    "Case.pull": "images.pull and blobs.pull",
    "Case.unpack": "a part of volumes.prepare",
    "Blobs.ingest_source": "sources are objects of this process; ingest and ingest_stream",
    "Images.adopt": "for images whose blobs came in one by one; load",
    "Images.resolve": "inspect, field resolved, for this machine; platforms names the others",
    "Images.resolve_disk": "a part of volumes.prepare_disk",
    "Images.touch": "whoever prepares a volume does it; nobody else uses an image here",
    "Volumes.activate_each": "activate_all",
    "Volumes.deactivate_each": "deactivate_all",
    "Volumes.iter_disks": "iter_volumes, those with a disk",
    "Volumes.iter_records": "iter_volumes, field record",
    "Volumes.recover": "Client.recover",
    "Events.publish": "the store's own",
}
"""Methods that the client lacks, and what there is instead."""
_ADDED = {
    "Client.connect": "Case.open",
    "Client.events": "containerd's, which Case has as an attribute",
    "Client.require_store": "a service may be another store's",
    "Client.vaults": "of the service's machine, before there is a Case",
    "Client.with_deadline": "a library call ends by its cancellation",
    "BlobsClient.pull": "Case.pull.file",
    "BlobsClient.send_for_image": "a request holds less than an image has",
    "ImagesClient.pull": "Case.pull.image",
}
"""Methods that the library lacks, or has elsewhere."""
_OPTIONS = {
    "Blobs.ingest": {"beneath"},
    "Images.import_archive": {"beneath"},
    "Images.load": {"labels"},
    "Pull.image": {"launch"},
    "Pull.file": {"credentials"},
}
"""Arguments that the client lacks: paths' bounds, processes and credentials are the service's, and
labels with which a name is made tell what was found out about its image."""


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_client_has_every_method_of_the_library_or_a_reason() -> None:
    """What comes new to one of them is missed here in the other."""
    lacking = {
        f"{own.__name__}.{name}"
        for own, client in _PAIRS
        for name in _public(own) - _public(client)
    }
    added = {
        f"{client.__name__}.{name}"
        for own, client in _PAIRS
        for name in _public(client) - _public(own)
    }
    settings = {"Case.events"}  # set at its making

    assert lacking == _LACKING.keys()
    assert added - settings == _ADDED.keys()


_METHODS = [
    (getattr(own, name), getattr(client, name))
    for own, client in _PAIRS
    for name in sorted(_public(own) & _public(client))
    if inspect.isfunction(getattr(own, name))
] + [(Pull.image, ImagesClient.pull), (Pull.file, BlobsClient.pull)]


@pytest.mark.parametrize(("own", "client"), _METHODS, ids=lambda method: method.__qualname__)
def test_method_of_the_client_takes_what_the_librarys_takes(
    own: FunctionType, client: FunctionType
) -> None:
    """By the same names and with the same defaults; what it takes more may be left out."""
    wanted, taken = _arguments(own), _arguments(client)
    left_out = _OPTIONS.get(own.__qualname__, set())

    assert wanted.keys() - taken.keys() == left_out
    assert {name: taken[name] for name in wanted if name in taken} == {
        name: each for name, each in wanted.items() if name not in left_out
    }
    assert inspect.Parameter.empty not in {
        default for name, (_, default) in taken.items() if name not in wanted
    }


def _arguments(method: FunctionType) -> dict[str, tuple[object, object]]:
    parameters = inspect.signature(method).parameters.values()
    return {each.name: (each.kind, each.default) for each in parameters}
