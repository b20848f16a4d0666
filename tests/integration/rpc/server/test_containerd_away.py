"""A containerd that hangs, and one that dies: calls end, the service lives on."""

import gc
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import pytest

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, volumes_pb2
from cas.containerd.daemon import Daemon
from cas.fsops.effects import Effect
from cas.model.digest import Digest
from tests.support.daemon import mounts_below
from tests.support.every_call import METHODS, REQUESTS, Stock, begin, outcome, stock
from tests.support.frozen import frozen
from tests.support.halting import halted
from tests.support.images import layered_image
from tests.support.rpc import (
    Service,
    error_info,
    failing,
    last,
    recover_until_nothing_is_left,
)
from tests.support.steps import AtStep, calls_announced
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

_SECONDS = 0.5
_PATIENT = 60.0

_ALONE = {"Store.Version", "Store.Wait", "Volumes.ListForeign"}
"""Methods that containerd is not needed for."""
_ASKING = sorted(METHODS.keys() - _ALONE)


@pytest.fixture
def daemon(mortal_daemon: Daemon) -> Daemon:
    """A containerd that works, and may be killed."""
    mortal_daemon.start()
    return mortal_daemon


@pytest.fixture
def service(daemon: Daemon, mortal_service: Service) -> Service:
    """A service that has noticed."""
    wait_for(lambda: _answers(mortal_service))
    return mortal_service


@pytest.fixture
def held(service: Service) -> Stock:
    """What is in its store."""
    return stock(service)


def test_every_method_is_tried() -> None:
    """A method that is declared and not called here would be tried with no dead containerd."""
    assert REQUESTS.keys() == METHODS.keys()


@pytest.mark.parametrize("name", _ASKING)
def test_call_whose_containerd_dies_says_so_and_leaves_nothing(
    service: Service, daemon: Daemon, held: Stock, name: str
) -> None:
    """It dies when the call is inside it; the error is temporary, and the same service goes on."""
    before = _Holdings.of(service)
    with frozen(daemon) as ice:
        call = begin(service, name, held, timeout=_PATIENT)
        wait_for(lambda: ice.was_asked() or call.done())
        ice.kill()
        said = _failures(name, call)

    assert set(said) == {_UNAVAILABLE}, said
    _assert_nothing_left_after_its_return(service, daemon, before)


@pytest.mark.parametrize(
    ("name", "effect", "part"),
    [
        ("Blobs.Ingest", Effect.FSYNC, "stage"),
        ("Blobs.Ingest", Effect.LINK, "blobs/sha256"),
        ("Blobs.Upload", Effect.LINK, "blobs/sha256"),
        ("Images.Import", Effect.FSYNC, "blobs/sha256"),
        ("Images.Upload", Effect.FSYNC, "blobs/sha256"),
        ("Volumes.Prepare", Effect.MKDIR, "preparing"),
        ("Volumes.Prepare", Effect.RENAME, "vault/volumes"),
        ("Volumes.Activate", Effect.MOUNT, "vault/volumes"),
        ("Volumes.Deactivate", Effect.UNMOUNT, "vault/volumes"),
        ("Volumes.DeactivateAll", Effect.UNMOUNT, "vault/volumes"),
        ("Volumes.Remove", Effect.RENAME, "vault/volumes"),
    ],
)
def test_call_whose_containerd_dies_in_its_middle_is_done_or_undone(
    service: Service, daemon: Daemon, held: Stock, name: str, effect: Effect, part: str
) -> None:
    """When half of it is on the disk: it ends well without containerd, or says what was missing."""
    before = _Holdings.of(service)
    with halted(effect, part) as halt:
        call = begin(service, name, held, timeout=_PATIENT)
        halt.await_reached()
        with frozen(daemon) as ice:
            halt.release()
            wait_for(lambda: ice.was_asked() or call.done())
            ice.kill()
            said = _failures(name, call)

    assert set(said) <= {_UNAVAILABLE}, said
    if not said:  # what it was to mount is mounted
        before = replace(before, mounts=before.mounts | _mounts(service))
    _assert_nothing_left_after_its_return(service, daemon, before)
    assert not _failures(name, begin(service, name, held, timeout=_PATIENT))


@pytest.mark.parametrize("name", ["Blobs.Upload", "Images.Upload"])
def test_upload_whose_containerd_dies_says_so_and_leaves_nothing(
    service: Service, daemon: Daemon, held: Stock, name: str
) -> None:
    """Between two messages of the caller, who goes on sending."""
    before = _Holdings.of(service)
    begun, dead = threading.Event(), threading.Event()

    def requests() -> Iterator[Any]:
        header, data, *more = REQUESTS[name](held)
        yield header
        yield type(data)(data=data.data[: len(data.data) // 2])
        begun.set()
        assert dead.wait(_PATIENT)
        yield type(data)(data=data.data[len(data.data) // 2 :])
        yield from more

    call = getattr(service, METHODS[name].containing_service.name.lower()).Upload.future(
        requests(), timeout=_PATIENT
    )
    assert begun.wait(_PATIENT)
    wait_for(lambda: list(service.case.backing.leases.iter_leases()))
    daemon.kill()
    dead.set()

    assert _failures(name, call) == [_UNAVAILABLE]
    _assert_nothing_left_after_its_return(service, daemon, before)


def test_removal_of_many_blobs_tells_what_was_done_before_containerd_died(
    service: Service, daemon: Daemon
) -> None:
    """What is gone is not asked for again."""
    there = service.case.blobs.ingest_stream(BytesIO(b"the first one")).digest
    wanted = [there, *(Digest.of(str(number).encode()) for number in range(4000))]
    request = blobs_pb2.RemoveBlobsRequest(digests=map(str, wanted), force=True)
    removals = AtStep(daemon.kill)
    removals.set(10)

    def announce(call: str) -> None:
        if "delete blob" in call:
            removals(call)

    told: list[blobs_pb2.RemoveBlobsResponse] = []
    with (
        calls_announced(announce),
        failing(grpc.StatusCode.UNAVAILABLE, "containerd-unavailable"),
    ):
        told.extend(service.blobs.Remove(request, timeout=_PATIENT))
    assert (told[0].digest, told[0].removed) == (str(there), True)
    assert [each.digest for each in told] == [str(each) for each in wanted[: len(told)]]


@pytest.mark.parametrize("name", ["Blobs.Read", "Images.Export", "Store.Events"])
def test_reading_whose_containerd_dies_ends_whole_or_says_so(
    service: Service, daemon: Daemon, held: Stock, name: str
) -> None:
    """Between two messages to the caller: what it has is never taken for all there is."""
    whole = b"" if name == "Store.Events" else _bytes_of(begin(service, name, held))
    before = _Holdings.of(service)
    call = begin(service, name, held, timeout=_PATIENT)
    first = next(call)
    daemon.kill()
    try:
        assert _bytes_of([first, *call]) == whole
    except grpc.RpcError as error:
        assert _said(error) == _UNAVAILABLE  # noqa: PT017 (it may also end well)
    else:
        assert name != "Store.Events"
    _assert_nothing_left_after_its_return(service, daemon, before)


def test_preparation_whose_containerd_dies_while_it_unpacks_goes_on_later(
    service: Service, daemon: Daemon, held: Stock
) -> None:
    """No half layer is taken for one; the volume can be made afterwards."""
    image = layered_image(3, name="example.com/unpack:1", seed="unpack")
    path = image.write_oci_tar(service.allowed / "unpack.tar")
    last(service.images.Import(images_pb2.ImportImageRequest(path=str(path))))
    before = _Holdings.of(service)
    request = volumes_pb2.PrepareVolumeRequest(name=str(held.absent), image=image.name)
    with halted(Effect.MKDIR, "unpack") as halt:
        call = service.volumes.Prepare(request, timeout=_PATIENT)
        halt.await_reached()
        with frozen(daemon) as ice:
            halt.release()
            wait_for(ice.was_asked)
            ice.kill()
            said = _failures("Volumes.Prepare", call)

    assert said == [_UNAVAILABLE]
    _assert_nothing_left_after_its_return(service, daemon, before)
    assert last(service.volumes.Prepare(request)).volume.name == str(held.absent)


@pytest.mark.parametrize("name", sorted(_ALONE))
def test_call_that_needs_no_containerd_works_without_it(
    service: Service, daemon: Daemon, held: Stock, name: str
) -> None:
    """Who asks whom it talks to, and who waits for the end of a call, hears it all the same."""
    daemon.kill()

    assert not _failures(name, begin(service, name, held, timeout=_PATIENT))


def test_calls_with_a_deadline_end_while_containerd_hangs(
    service: Service, daemon: Daemon, held: Stock
) -> None:
    """For the caller at its deadline, in the service soon after; nothing is left of them."""
    with frozen(daemon):
        calls = {name: begin(service, name, held, timeout=_SECONDS) for name in _ASKING}
        codes = {name: _code(name, call) for name, call in calls.items()}
        # Those under way are given up after some seconds, those that would undo soon after.
        wait_for(lambda: service.server.running == 0, seconds=100)

    assert set(codes.values()) == {grpc.StatusCode.DEADLINE_EXCEEDED}, codes
    # What could not be undone while it hung is undone by a recovery, once containerd has worked
    # off what it was asked for before.
    recover_until_nothing_is_left(service)


def test_work_in_the_middle_when_containerd_hangs_is_undone_when_it_goes_on(
    service: Service, daemon: Daemon, held: Stock
) -> None:
    """A hang of some seconds costs nothing but time."""
    image = layered_image(3, name="example.com/hang:1", seed="hang")
    path = image.write_oci_tar(service.allowed / "hang.tar")
    last(service.images.Import(images_pb2.ImportImageRequest(path=str(path))))
    request = volumes_pb2.PrepareVolumeRequest(name=str(held.absent), image=image.name)
    key = (("cas-call", "hang"),)
    with halted(Effect.MKDIR, "unpack") as halt:
        call = service.volumes.Prepare(request, metadata=key)
        halt.await_reached()
        with frozen(daemon) as ice:
            halt.release()
            call.cancel()
            wait_for(ice.was_asked)
        service.store.Wait(store_pb2.WaitRequest(call="hang"))

    assert_nothing_left(service.case.backing)
    assert last(service.volumes.Prepare(request)).volume.name == str(held.absent)


_UNAVAILABLE = ("UNAVAILABLE", "containerd-unavailable", True)
"""Code, reference, and whether it is temporary."""


def _said(error: grpc.RpcError) -> tuple[str, str, bool]:
    assert isinstance(error, grpc.Call)
    info = error_info(error)
    return error.code().name, info.reason, info.metadata["temporary"] == "true"


def _failures(name: str, call: Any) -> list[tuple[str, str, bool]]:
    """What a call says that went wrong, as a whole or with one of several objects."""
    try:
        answers = outcome(name, call)
    except grpc.RpcError as error:
        return [_said(error)]
    errors = [
        answer.error
        for answer in answers
        if "error" in answer.DESCRIPTOR.fields_by_name and answer.HasField("error")
    ]
    return [("UNAVAILABLE", error.reference, error.temporary) for error in errors]


def _code(name: str, call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        outcome(name, call)
    code: grpc.StatusCode = caught.value.code()
    return code


def _bytes_of(answers: Any) -> bytes:
    return b"".join(getattr(answer, "data", b"") for answer in answers)


@dataclass(frozen=True)
class _Holdings:
    """What a process and its mount table hold.

    Attributes:
        descriptors: How many.
        threads: Those outside the pools, which keep theirs.
        mounts: Below the store.
    """

    descriptors: int
    threads: Counter[str]
    mounts: frozenset[Path]

    @classmethod
    def of(cls, service: Service) -> "_Holdings":
        """Look at this process, without what only waits to be collected."""
        gc.collect()
        names = (thread.name for thread in threading.enumerate())
        return cls(
            len(list(Path("/proc/self/fd").iterdir())),
            Counter(name for name in names if not name.startswith("cas-rpc")),
            _mounts(service),
        )

    def is_within(self, before: "_Holdings") -> bool:
        """Whether nothing came on top; what a call unmounts it may have."""
        return (
            self.descriptors <= before.descriptors
            and self.threads <= before.threads
            and self.mounts <= before.mounts
        )


def _mounts(service: Service) -> frozenset[Path]:
    return frozenset(mounts_below(service.case.settings.layout.volumes))


def _assert_nothing_left_after_its_return(
    service: Service, daemon: Daemon, before: _Holdings
) -> None:
    wait_for(lambda: service.server.running == 0)  # its caller hears of the end first
    daemon.start()
    wait_for(lambda: _answers(service))
    service.store.Recover(store_pb2.RecoverRequest())
    assert_nothing_left(service.case.backing)
    volumes = service.case.settings.layout.volumes
    assert [path.name for path in volumes.iterdir() if path.name.startswith(".")] == []
    wait_for(lambda: _Holdings.of(service).is_within(before))


def _answers(service: Service) -> bool:
    try:
        service.images.Exists(images_pb2.ImageExistsRequest(name="nobody"))
    except grpc.RpcError as error:
        if error_info(error).reason != "containerd-unavailable":
            raise
        return False
    return True
