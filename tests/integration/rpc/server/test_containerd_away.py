"""A containerd that hangs, and one that dies: calls end, the service lives on."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2, volumes_pb2
from cas.app import Case
from cas.containerd.daemon import Daemon
from cas.fsops.effects import Effect
from cas.model.digest import Digest
from tests.support.halting import halted
from tests.support.images import layered_image
from tests.support.rpc import Service, error_info, failing, last, serve
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

_NAME = f"{uuid.UUID(int=7)}#0"
_DIGEST = str(Digest.of(b""))
_SECONDS = 0.5


@pytest.fixture
def service(restartable_daemon: Daemon, tmp_path: Path) -> Iterator[Service]:
    """A service on a containerd that may be stopped."""
    with Case.open(restartable_daemon.settings) as case, serve(case, tmp_path) as service:
        yield service


@contextmanager
def _frozen(daemon: Daemon) -> Iterator[None]:
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def _upload() -> Iterator[blobs_pb2.UploadBlobRequest]:
    yield blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader(name="x"))
    yield blobs_pb2.UploadBlobRequest(data=os.urandom(100_000))


def _descriptor() -> types_pb2.Descriptor:
    return types_pb2.Descriptor(media_type="x", digest=_DIGEST)


CALLS: dict[str, Callable[[Service, float], Any]] = {
    "Blobs.Get": lambda s, t: s.blobs.Get(blobs_pb2.GetBlobRequest(digest=_DIGEST), timeout=t),
    "Blobs.List": lambda s, t: list(s.blobs.List(blobs_pb2.ListBlobsRequest(), timeout=t)),
    "Blobs.Upload": lambda s, t: s.blobs.Upload(_upload(), timeout=t),
    "Blobs.Remove": lambda s, t: list(
        s.blobs.Remove(blobs_pb2.RemoveBlobsRequest(digests=[_DIGEST]), timeout=t)
    ),
    "Images.Create": lambda s, t: s.images.Create(
        images_pb2.CreateImageRequest(name="x", target=_descriptor()), timeout=t
    ),
    "Images.Remove": lambda s, t: s.images.Remove(
        images_pb2.RemoveImageRequest(name="x"), timeout=t
    ),
    "Images.Prune": lambda s, t: list(s.images.Prune(types_pb2.PruneRequest(), timeout=t)),
    "Volumes.Prepare": lambda s, t: list(
        s.volumes.Prepare(volumes_pb2.PrepareVolumeRequest(name=_NAME, image="x"), timeout=t)
    ),
    "Volumes.Remove": lambda s, t: s.volumes.Remove(
        volumes_pb2.RemoveVolumeRequest(name=_NAME), timeout=t
    ),
    "Store.Usage": lambda s, t: list(s.store.Usage(store_pb2.UsageRequest(), timeout=t)),
    "Store.Check": lambda s, t: list(s.store.Check(store_pb2.CheckRequest(fix=True), timeout=t)),
    "Store.CollectGarbage": lambda s, t: s.store.CollectGarbage(
        store_pb2.CollectGarbageRequest(), timeout=t
    ),
}
"""One of each way in which containerd is asked."""


def test_calls_with_a_deadline_end_while_containerd_hangs(
    service: Service, restartable_daemon: Daemon
) -> None:
    """For the caller at its deadline, in the service soon after; nothing is left of them."""
    codes: dict[str, grpc.StatusCode] = {}
    took: dict[str, float] = {}

    def call(name: str) -> None:
        begun = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            CALLS[name](service, _SECONDS)
        codes[name], took[name] = caught.value.code(), time.monotonic() - begun

    with _frozen(restartable_daemon):
        threads = [threading.Thread(target=call, args=[name]) for name in CALLS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Those under way are given up after some seconds, those that would undo soon after.
        wait_for(lambda: service.server.running == 0, seconds=100)

    assert set(codes.values()) == {grpc.StatusCode.DEADLINE_EXCEEDED}, codes
    assert max(took.values()) < 10, took
    # What could not be undone while it hung is undone by a recovery, once containerd has worked
    # off what it was asked for before.
    wait_for(lambda: _is_clean_after_recovery(service))
    assert_nothing_left(service.case.backing)


def test_work_in_the_middle_when_containerd_hangs_is_undone_when_it_goes_on(
    service: Service, restartable_daemon: Daemon, tmp_path: Path
) -> None:
    """A hang of some seconds costs nothing but time."""
    image = layered_image(3, name="example.com/a:1", seed="hang")
    path = image.write_oci_tar(service.case.settings.layout.verifier / "image.tar")
    last(service.images.Import(images_pb2.ImportImageRequest(path=str(path))))
    request = volumes_pb2.PrepareVolumeRequest(name=_NAME, image=image.name)
    key = (("cas-call", "hang"),)
    with halted(Effect.MKDIR, "unpack") as halt:
        call = service.volumes.Prepare(request, metadata=key)
        halt.await_reached()
        with _frozen(restartable_daemon):
            halt.release()
            call.cancel()
            time.sleep(0.2)  # into the hang, whatever it does there
        service.store.Wait(store_pb2.WaitRequest(call="hang"))

    assert_nothing_left(service.case.backing)
    assert last(service.volumes.Prepare(request)).volume.name == _NAME


def test_calls_while_containerd_is_away_say_so(
    service: Service, restartable_daemon: Daemon
) -> None:
    """A clear error that is temporary; as soon as it is back, calls work."""
    restartable_daemon.kill()
    for call in CALLS.values():
        with failing(grpc.StatusCode.UNAVAILABLE, "containerd-unavailable") as error:
            call(service, 30)
        assert error_info(error()).metadata["temporary"] == "true"
    assert service.store.Version(store_pb2.VersionRequest()).cas

    restartable_daemon.start()
    wait_for(lambda: _answers(service))
    assert service.server.running == 0


def _answers(service: Service) -> bool:
    try:
        service.blobs.Exists(blobs_pb2.BlobExistsRequest(digest=_DIGEST))
    except grpc.RpcError as error:
        if error_info(error).reason != "containerd-unavailable":
            raise
        return False
    return True


def _is_clean_after_recovery(service: Service) -> bool:
    service.store.Recover(store_pb2.RecoverRequest())
    return list(service.case.backing.leases.iter_leases()) == []
