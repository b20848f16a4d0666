"""A store that was opened before its vault was locked: every use case, from one table.

A public method of a use case that is in neither table fails the test.
"""

import inspect
import io
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pytest

from cas.app import Case, open_vaults
from cas.containerd.daemon import Daemon
from cas.errors import CasError, VaultLockedError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.disk.record import DiskRequest
from cas.model.events import EventKind
from cas.model.settings import Settings
from cas.model.vault_settings import ProviderName, VaultSettings
from cas.model.volume_name import VolumeName
from cas.store.content.sources import FileSource
from cas.store.image.resolution import ResolvedImage
from cas.store.prune.plan import PrunePlan
from tests.support.daemon import persist_directory, settings_for
from tests.support.images import layered_image
from tests.support.loopfs import LoopFileSystem
from tests.support.vaults import no_passphrase

pytestmark = pytest.mark.slow

_DISK_BYTES = 512 * 1024 * 1024
_NAME = "example.com/test/image:1"
_VOLUME = VolumeName.parse(f"{uuid.UUID(int=5)}#0")
_DISK = VolumeName.parse(f"{uuid.UUID(int=6)}#0")
_DIGEST = Digest.of(b"content")
_TARGET = Descriptor("application/vnd.oci.image.manifest.v1+json", _DIGEST, 7)


@dataclass(frozen=True)
class Locked:
    """A store whose vault was locked after it was opened, and with what was planned before.

    Attributes:
        case: The store.
        plan: To prune all of it.
        resolved: An image that it has.
        blob: A file of content that it does not have.
        archive: An image that it does not have.
    """

    case: Case
    plan: PrunePlan
    resolved: ResolvedImage
    blob: Path
    archive: Path

    def entries(self) -> list[Path]:
        """Everything in the vault, as far as names can be seen."""
        return sorted(self.case.settings.layout.vault.rglob("*"))


Call = Callable[[Case, Locked], object]

WRITERS: dict[str, Call] = {
    "blobs.ingest": lambda c, x: c.blobs.ingest(x.blob),
    "blobs.ingest_stream": lambda c, x: c.blobs.ingest_stream(io.BytesIO(b"x")),
    "blobs.ingest_source": lambda c, x: c.blobs.ingest_source(FileSource(x.blob)),
    "blobs.ingest_many": lambda c, x: list(c.blobs.ingest_many([x.blob])),
    "blobs.update_labels": lambda c, x: c.blobs.update_labels(_DIGEST, {"a": "b"}),
    "blobs.remove": lambda c, x: c.blobs.remove(_DIGEST),
    "blobs.remove_many": lambda c, x: list(c.blobs.remove_many([_DIGEST])),
    "blobs.pin": lambda c, x: c.blobs.pin(_DIGEST, owner="me", reason="test"),
    "blobs.unpin": lambda c, x: c.blobs.unpin(_DIGEST),
    "images.import_archive": lambda c, x: c.images.import_archive(x.archive),
    "images.load": lambda c, x: c.images.load("example.com/a:1", _TARGET, []),
    "images.create": lambda c, x: c.images.create("example.com/a:1", _TARGET),
    "images.replace": lambda c, x: c.images.replace(_NAME, _TARGET),
    "images.tag": lambda c, x: c.images.tag(_NAME, "example.com/a:1"),
    "images.touch": lambda c, x: c.images.touch(_NAME),
    "images.wrap_disk": lambda c, x: c.images.wrap_disk("example.com/a:1", _DIGEST),
    "images.remove": lambda c, x: c.images.remove(_NAME),
    "pull.image": lambda c, x: c.pull.image("localhost:1/test/image:1"),
    "pull.file": lambda c, x: c.pull.file("file:///dev/null", _DIGEST),
    "pull.sweep": lambda c, x: c.pull.sweep(),
    "volumes.prepare": lambda c, x: c.volumes.prepare(_VOLUME, _NAME),
    "volumes.prepare_disk": lambda c, x: c.volumes.prepare_disk(_DISK, DiskRequest(None, 4096)),
    "volumes.activate": lambda c, x: c.volumes.activate(_VOLUME),
    "volumes.activate_all": lambda c, x: c.volumes.activate_all(),
    "volumes.activate_each": lambda c, x: list(c.volumes.activate_each()),
    "volumes.deactivate": lambda c, x: c.volumes.deactivate(_VOLUME),
    "volumes.deactivate_all": lambda c, x: c.volumes.deactivate_all(),
    "volumes.deactivate_each": lambda c, x: list(c.volumes.deactivate_each()),
    "volumes.remove": lambda c, x: c.volumes.remove(_VOLUME),
    "volume_snapshots.create": lambda c, x: c.volume_snapshots.create([_VOLUME], "s"),
    "volume_snapshots.roll_back": lambda c, x: c.volume_snapshots.roll_back([_VOLUME], "s"),
    "volume_snapshots.remove": lambda c, x: c.volume_snapshots.remove(_VOLUME, "s"),
    "volumes.recover": lambda c, x: c.volumes.recover(),
    "prune.execute": lambda c, x: c.prune.execute(x.plan),
    "repair.repair": lambda c, x: list(c.repair.repair([])),
    "recover": lambda c, x: c.recover(),
    "collect_garbage": lambda c, x: c.collect_garbage(),
    "check_store": lambda c, x: c.check_store(fix=True),
}
READERS: dict[str, Call] = {
    "blobs.iter_blobs": lambda c, x: list(c.blobs.iter_blobs()),
    "blobs.get": lambda c, x: c.blobs.get(_DIGEST),
    "blobs.iter_media_types": lambda c, x: list(c.blobs.iter_media_types()),
    "blobs.children": lambda c, x: c.blobs.children(_DIGEST),
    "blobs.read": lambda c, x: list(c.blobs.read(_DIGEST)),
    "blobs.verify": lambda c, x: c.blobs.verify(_DIGEST),
    "blobs.exists": lambda c, x: c.blobs.exists(_DIGEST),
    "blobs.missing": lambda c, x: list(c.blobs.missing([_DIGEST])),
    "images.iter_images": lambda c, x: list(c.images.iter_images()),
    "images.get": lambda c, x: c.images.get(_NAME),
    "images.exists": lambda c, x: c.images.exists(_NAME),
    "images.resolve": lambda c, x: c.images.resolve(_NAME),
    "images.resolve_disk": lambda c, x: c.images.resolve_disk(_NAME),
    "images.inspect": lambda c, x: c.images.inspect(_NAME),
    "images.export": lambda c, x: c.images.export(_NAME, io.BytesIO()),
    "volumes.iter_volumes": lambda c, x: list(c.volumes.iter_volumes()),
    "volumes.iter_disks": lambda c, x: list(c.volumes.iter_disks()),
    "volumes.iter_records": lambda c, x: list(c.volumes.iter_records()),
    "volumes.iter_foreign": lambda c, x: list(c.volumes.iter_foreign()),
    "volumes.get": lambda c, x: c.volumes.get(_VOLUME),
    "volumes.usage": lambda c, x: c.volumes.usage(_VOLUME),
    "volume_snapshots.iter_snapshots": lambda c, x: list(
        c.volume_snapshots.iter_snapshots(_VOLUME)
    ),
    "prune.plan": lambda c, x: c.prune.plan(),
    "usage.measure": lambda c, x: c.usage.measure(),
    "check.run": lambda c, x: list(c.check.run()),
    "unpack.is_unpacked": lambda c, x: c.unpack.is_unpacked(x.resolved),
    "why.explain": lambda c, x: c.why.explain(_NAME),
}
OTHERS = {
    "images.adopt",  # needs a lease, which is refused
    "unpack.unpack",  # the same
    "images.platform",
    "close",
    "now",
    "open",
}


@pytest.fixture(scope="module")
def locked(containerd_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    """A store with an image and a volume that was open when the vault was locked under it."""
    directory = tmp_path_factory.mktemp("sources")
    (directory / "key").touch(0o600)
    (directory / "key").write_bytes(bytes(range(32)))
    (directory / "blob").write_bytes(b"content")
    archive = layered_image(1, name="example.com/other:1").write_oci_tar(directory / "archive")
    image = layered_image(1, name=_NAME).write_oci_tar(directory / "image")
    with (
        persist_directory() as place,
        LoopFileSystem(place, _DISK_BYTES, ["encrypt"]) as disk,
    ):
        settings = _vault_settings(disk.path, directory / "key", containerd_binary)
        vaults = open_vaults(settings, ask=no_passphrase)
        vaults.init()
        with Daemon(settings) as daemon, Case.open(settings) as case:
            case.images.import_archive(image)
            case.volumes.prepare(_VOLUME, _NAME)
            plan, resolved = case.prune.plan(), case.images.resolve(_NAME)
            daemon.stop()
            vaults.lock()
            yield Locked(case, plan, resolved, directory / "blob", archive)


def _vault_settings(persist: Path, key: Path, containerd: str) -> Settings:
    vault = VaultSettings(provider=ProviderName.KEY_FILE, key_file=key)
    return replace(settings_for(persist, containerd), vault=vault, require_encryption=True)


def test_every_use_case_is_in_one_of_the_tables(locked: Locked) -> None:
    """Whoever adds one says here whether it writes."""
    found = set()
    for name in (name for name in dir(Case) if not name.startswith("_")):
        member = inspect.getattr_static(Case, name)
        if isinstance(member, cached_property):
            part = getattr(locked.case, name)
            found |= {f"{name}.{each}" for each in dir(part) if not each.startswith("_")}
        else:
            found.add(name)
    assert found == {*WRITERS, *READERS, *OTHERS}


@pytest.mark.parametrize("name", WRITERS)
def test_writer_is_refused_in_words_and_creates_nothing(name: str, locked: Locked) -> None:
    """Before containerd, which is gone, is asked, and before the kernel says ENOKEY."""
    before = locked.entries()
    with pytest.raises(VaultLockedError, match="cas vault unlock"):
        WRITERS[name](locked.case, locked)
    assert locked.entries() == before


@pytest.mark.parametrize("name", READERS)
def test_reader_gives_an_error_and_no_empty_store(name: str, locked: Locked) -> None:
    """What cannot be seen is not reported as absent."""
    before = locked.entries()
    with pytest.raises(CasError) as caught:
        READERS[name](locked.case, locked)
    assert isinstance(caught.value, VaultLockedError) or caught.value.temporary, caught.value
    assert locked.entries() == before


def test_event_of_a_locked_store_is_told_to_nobody_and_fails_nothing(locked: Locked) -> None:
    """The bus is containerd's memory; what has happened has happened."""
    before = locked.entries()
    locked.case.events.publish(EventKind.VOLUME_REMOVED, [str(_VOLUME)])
    assert locked.entries() == before
