"""Callers who do not go on although it is their turn: what they hold up, and for how long."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2
from cas.app import Case
from cas.errors import InterruptedOperationError
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.rpc.server.registry import Patience
from tests.support.images import build_image
from tests.support.layers import build_layer, file
from tests.support.rpc import PATIENT, Service, failing, falling_silent, last, serve
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

_MIB = 1024 * 1024
_MORE_THAN_PLACES = 10
_TRANSFERS = 8
_ARCHIVES = 4
_SECONDS = 60
"""Deadline of calls that must get through."""

Silent = Callable[..., Iterator[Any]]
Occupy = Callable[[Service, Silent], Any]
Ask = Callable[[Service], object]


def _file(service: Service, size: int) -> str:
    path = service.allowed / os.urandom(8).hex()
    path.write_bytes(os.urandom(size))
    return str(path)


def _ingest(service: Service, size: int = _MIB) -> str:
    request = blobs_pb2.IngestBlobRequest(path=_file(service, size))
    return last(service.blobs.Ingest(request, timeout=_SECONDS)).ingested.digest


def _import(service: Service) -> str:
    image = build_image([build_layer([file("x", os.urandom(16 * _MIB))])], name="example.com/x:1")
    path = image.write_oci_tar(service.allowed / os.urandom(8).hex())
    request = images_pb2.ImportImageRequest(path=str(path))
    list(service.images.Import(request, timeout=_SECONDS))
    return image.name


def _largest(service: Service) -> str:
    return str(max(service.case.blobs.iter_blobs(), key=lambda blob: blob.size).digest)


_HEADER = blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader())
_END = blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd())


def _data(size: int) -> blobs_pb2.UploadBlobRequest:
    return blobs_pb2.UploadBlobRequest(data=os.urandom(size))


def _idle_upload(service: Service, silent: Silent) -> Any:
    return service.blobs.Upload.future(silent(_HEADER, _data(200_000)))


def _trickling_upload(service: Service, silent: Silent) -> Any:
    pause = threading.Event()

    def requests() -> Iterator[Any]:
        yield from (_HEADER, _data(200_000))
        while not pause.wait(0.05):
            yield _data(1)

    call = service.blobs.Upload.future(requests())
    call.add_done_callback(lambda _: pause.set())
    return call


def _idle_archive(service: Service, silent: Silent) -> Any:
    header = images_pb2.UploadImageRequest(header=images_pb2.UploadImageHeader())
    return service.images.Upload.future(silent(header, images_pb2.UploadImageRequest(data=b"x")))


def _mute(service: Service, silent: Silent) -> Any:
    return service.blobs.Upload.future(silent())


def _slow_reader(service: Service, _: Silent) -> Any:
    digest = _largest(service)
    return service.blobs.Read(blobs_pb2.ReadBlobRequest(digest=digest))


def _slow_export(service: Service, _: Silent) -> Any:
    name = next(iter(service.case.images.iter_images())).name
    return service.images.Export(images_pb2.ExportImageRequest(name=name))


def _upload(service: Service) -> object:
    return service.blobs.Upload(iter([_HEADER, _data(_MIB // 4), _END]), timeout=_SECONDS)


def _upload_archive(service: Service) -> object:
    header = images_pb2.UploadImageRequest(header=images_pb2.UploadImageHeader())
    image = build_image([build_layer([file("y", b"y")])], name="example.com/y:1")
    data = image.write_oci_tar(service.allowed / "y").read_bytes()
    return service.images.Upload(
        iter(
            [
                header,
                images_pb2.UploadImageRequest(data=data),
                images_pb2.UploadImageRequest(end=types_pb2.UploadEnd()),
            ]
        ),
        timeout=_SECONDS,
    )


def _read(service: Service) -> object:
    digest = _largest(service)
    return list(service.blobs.Read(blobs_pb2.ReadBlobRequest(digest=digest), timeout=_SECONDS))


_OCCUPIERS = [_idle_upload, _trickling_upload, _idle_archive, _slow_reader, _slow_export]


def _holding(service: Service) -> int:
    """Callers who hold a place."""
    return sum(call.holds_place for call in list(service.server.calls._calls))


@pytest.mark.parametrize("occupy", _OCCUPIERS)
def test_slow_callers_hold_up_no_work_of_the_service(
    case: Case, allowed: Path, occupy: Occupy
) -> None:
    """What goes at the service's own pace waits for no caller, however many do not go on."""
    with serve(case, allowed) as service, falling_silent() as silent:
        _import(service)
        calls = [occupy(service, silent) for _ in range(_MORE_THAN_PLACES)]
        wait_for(lambda: service.server.running == _MORE_THAN_PLACES)
        digest = _ingest(service)
        list(service.blobs.Verify(blobs_pb2.VerifyBlobRequest(digest=digest), timeout=_SECONDS))
        for call in calls:
            call.cancel()


@pytest.mark.parametrize(
    ("occupy", "places", "ask"),
    [
        (_idle_upload, _TRANSFERS, _upload),
        (_trickling_upload, _TRANSFERS, _upload),
        (_idle_archive, _ARCHIVES, _upload_archive),
        (_slow_reader, _TRANSFERS, _read),
        (_slow_export, _ARCHIVES, _upload_archive),
        (_idle_upload, _TRANSFERS, _read),
    ],
)
def test_caller_who_keeps_others_waiting_is_broken_off(
    case: Case, allowed: Path, occupy: Occupy, places: int, ask: Ask
) -> None:
    """Whoever waits for a place gets one, and nothing is left of those who did not go on."""
    patience = replace(PATIENT, wanted=0.2)
    with serve(case, allowed, patience=patience) as service, falling_silent() as silent:
        _import(service)
        calls = [occupy(service, silent) for _ in range(places)]  # nobody waits for one yet
        wait_for(lambda: _holding(service) == places)
        ask(service)
        for call in calls:  # which end with the last mention of them
            call.cancel()
    assert_nothing_left(case.backing)


@pytest.mark.parametrize("occupy", [_idle_upload, _trickling_upload, _idle_archive, _mute])
def test_stalled_uploader_hears_why_it_is_broken_off(
    case: Case, allowed: Path, occupy: Occupy
) -> None:
    """By a reference, so that it knows that it may come again."""
    patience = Patience(stalled=0.2, first=0.2)
    with serve(case, allowed, patience=patience) as service, falling_silent() as silent:
        with failing(grpc.StatusCode.ABORTED, "caller-stalled"):
            occupy(service, silent).result(timeout=_SECONDS)
        wait_for(lambda: service.server.running == 0)
    assert_nothing_left(case.backing)


def test_silent_uploader_hears_of_the_end_of_all_calls_on_the_vault(service: Service) -> None:
    """Although it is waited for."""
    with falling_silent() as silent:
        call = _idle_upload(service, silent)
        wait_for(lambda: _holding(service) == 1)
        service.server.end_guarded_calls()
        with failing(grpc.StatusCode.CANCELLED, "interrupted"):
            call.result(timeout=_SECONDS)


def test_idle_caller_whom_nobody_waits_for_goes_on(case: Case, allowed: Path) -> None:
    """Patience ends when others want the place, and not before."""
    go_on = threading.Event()

    def requests() -> Iterator[Any]:
        yield from (_HEADER, _data(1))
        assert go_on.wait(_SECONDS)
        yield _END

    with serve(case, allowed, patience=replace(PATIENT, wanted=0.05)) as service:
        idle = service.blobs.Upload.future(requests())
        wait_for(lambda: service.server.running == 1)
        for _ in range(3):
            _upload(service)
            _ingest(service)
        go_on.set()
        assert idle.result(timeout=_SECONDS).size == 1


def test_pulls_that_wait_for_a_registry_hold_up_no_other_work(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have places of their own."""

    def hang(_reference: str, *, cancel: Cancellation, **_: object) -> None:
        while not cancel.wait(_SECONDS):
            pass
        raise InterruptedOperationError("the caller went away")

    monkeypatch.setattr(service.case.pull, "image", hang)
    request = images_pb2.PullImageRequest(reference="example.com/x:1")
    calls = [service.images.Pull(request) for _ in range(_MORE_THAN_PLACES)]
    wait_for(lambda: service.server.running == _MORE_THAN_PLACES)
    _ingest(service)
    _upload(service)
    for call in calls:
        call.cancel()
    wait_for(lambda: service.server.running == 0)


def test_slow_readers_of_removals_hold_up_no_look_at_the_store(service: Service) -> None:
    """What was done is told when the place is free again."""
    digests = [str(Digest.of(str(number).encode())) for number in range(2000)]
    request = blobs_pb2.RemoveBlobsRequest(digests=digests)
    calls = [service.blobs.Remove(request) for _ in range(3)]
    wait_for(lambda: service.server.running == 3)
    with failing(grpc.StatusCode.NOT_FOUND, "not-found"):
        service.store.Why(store_pb2.WhyRequest(object="nothing"), timeout=_SECONDS)
    for call in calls:
        call.cancel()
