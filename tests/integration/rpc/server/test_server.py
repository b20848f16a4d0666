"""The server's own life: socket, health, reflection, stalled callers, the vault, the end."""

import logging
import os
import re
import socket as sockets
import stat
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2, volumes_pb2
from cas.app import Case
from cas.daemon.metrics import Metrics
from cas.errors import CallerStalledError, InUseError, SocketPathError
from cas.fsops.effects import Effect
from cas.model.digest import Digest
from cas.rpc.health import HealthProbe
from cas.rpc.limits import PIECE_BYTES
from cas.rpc.status import error_from_rpc
from tests.support.daemon import WAIT_SECONDS
from tests.support.halting import halted
from tests.support.rpc import (
    PATIENT,
    Service,
    connect,
    failing,
    falling_silent,
    last,
    serve,
    take_patience,
)
from tests.support.serving import server_of
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

_CHECK = "/grpc.health.v1.Health/Check"
_GET = "/cas.v1.Blobs/Get"
_MIB = 1024 * 1024
_NAMES = ["cas.v1.Blobs", "cas.v1.Images", "cas.v1.Store", "cas.v1.Vault", "cas.v1.Volumes"]


class _Recorded:
    """Counts calls."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[tuple[str, str]] = []

    def call_began(self, method: str) -> None:
        self.began.append(method)

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.ended.append((method, code))


def test_socket_is_open_to_its_group_only(case: Case, allowed: Path) -> None:
    """Mode and group are as asked; both it and its name are gone afterwards."""
    with serve(case, allowed, gid=12345) as service:
        status = service.socket.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, 12345)
    assert not service.socket.exists()


def test_second_server_on_a_socket_is_refused(service: Service) -> None:
    """The first one does not notice."""
    with pytest.raises(InUseError), server_of(service.case, service.socket):
        pass
    assert service.store.Version(store_pb2.VersionRequest()).cas


def test_socket_of_a_dead_server_is_replaced(case: Case, allowed: Path) -> None:
    """A kill leaves it; the next server takes its place, again and again."""
    path = case.settings.persist / f"{case.settings.namespace}.sock"
    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(str(path))
    for _ in range(3):
        with serve(case, allowed) as service:
            assert service.store.Version(store_pb2.VersionRequest()).cas


def test_name_that_is_no_socket_is_left_alone(case: Case, allowed: Path) -> None:
    """Somebody's file is not removed."""
    path = case.settings.persist / f"{case.settings.namespace}.sock"
    path.write_text("mine")
    try:
        with pytest.raises(InUseError), serve(case, allowed):
            pass
        assert path.read_text() == "mine"
    finally:
        path.unlink()


def test_socket_path_that_is_too_long_is_refused(case: Case) -> None:
    """The kernel takes 107 bytes."""
    with pytest.raises(SocketPathError), server_of(case, Path("/tmp") / ("x" * 120)):
        pass


def test_health_follows_what_it_is_told(service: Service) -> None:
    """For the whole and for each service; a watcher hears of changes."""
    health: Any = health_pb2_grpc.HealthStub(service.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", *_NAMES):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == serving
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == serving

    service.server.set_serving(False)

    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    vault = health_pb2.HealthCheckRequest(service="cas.v1.Vault")
    assert health.Check(vault).status == serving
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="cas.v1.Nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_names_the_services_and_describes_them(service: Service) -> None:
    """Tools such as grpcurl need no files of ours."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="cas.v1.Blobs"),
    ]

    listed, described = stub.ServerReflectionInfo(iter(asked))

    names = [each.name for each in listed.list_services_response.service]
    assert set(_NAMES) <= set(names)
    assert any(
        b"UploadBlobRequest" in each
        for each in described.file_descriptor_response.file_descriptor_proto
    )


def test_observer_is_told_of_each_call(case: Case, allowed: Path) -> None:
    """Method and status, whatever they are."""
    observer = _Recorded()
    with serve(case, allowed, observer=observer) as service:
        service.store.Version(store_pb2.VersionRequest())
        with failing(grpc.StatusCode.NOT_FOUND, "image-not-found"):
            service.images.Get(images_pb2.GetImageRequest(name="x"))
        list(service.blobs.List(blobs_pb2.ListBlobsRequest()))
        wait_for(lambda: len(observer.ended) == 3)

    assert observer.began == ["/cas.v1.Store/Version", "/cas.v1.Images/Get", "/cas.v1.Blobs/List"]
    assert [code for _, code in observer.ended] == ["OK", "NOT_FOUND", "OK"]


def test_metrics_tell_the_truth_about_calls_that_end_badly(case: Case, allowed: Path) -> None:
    """None is counted as running when it has ended, and none as well done that was not."""
    metrics = Metrics()

    def told(name: str, method: str, **labels: str) -> float | None:
        found = {"method": f"/cas.v1.Blobs/{method}", **labels}
        return metrics.registry.get_sample_value(name, found)

    def running() -> tuple[float | None, ...]:
        return told("cas_rpc_running", "Read"), told("cas_rpc_running", "Upload")

    header = blobs_pb2.UploadBlobHeader(digest=str(Digest.of(b"other bytes")))
    first = blobs_pb2.UploadBlobRequest(header=header)
    end = blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd())
    with serve(case, allowed, observer=metrics) as service, falling_silent() as silent:
        (allowed / "large").write_bytes(bytes(20_000_000))
        large = case.blobs.ingest(allowed / "large").digest
        reading = service.blobs.Read(blobs_pb2.ReadBlobRequest(digest=str(large)))
        next(reading)
        uploading = service.blobs.Upload.future(silent(first))
        wait_for(lambda: running() == (1, 1))
        for call in (reading, uploading):
            call.cancel()
        with failing(grpc.StatusCode.DATA_LOSS, "digest-mismatch"):
            service.blobs.Upload(iter([first, end]))
        wait_for(lambda: running() == (0, 0))

    assert told("cas_rpc_calls_total", "Read", code="CANCELLED") == 1
    # gRPC tells that the caller went away, or a moment before that nothing more comes of it.
    ends = [
        told("cas_rpc_calls_total", "Upload", code=c) for c in ("CANCELLED", "INVALID_ARGUMENT")
    ]
    assert sorted(filter(None, ends)) == [1]
    assert told("cas_rpc_calls_total", "Upload", code="DATA_LOSS") == 1
    for method in ("Read", "Upload"):
        assert told("cas_rpc_calls_total", method, code="OK") is None


def test_reader_that_stalls_is_broken_off(case: Case, allowed: Path) -> None:
    """It hears what happened on which object and what to do; the service goes on without it."""
    path = allowed / "large"
    path.write_bytes(os.urandom(16 * _MIB))
    digest = str(case.blobs.ingest(path).digest)
    observer = _Recorded()
    patience = replace(PATIENT, stalled=0.5)
    with serve(case, allowed, patience=patience, observer=observer) as service:
        stalled = service.blobs.Read(blobs_pb2.ReadBlobRequest(digest=digest))

        wait_for(lambda: observer.ended)

        with pytest.raises(grpc.RpcError) as caught:
            for _ in stalled:
                pass
        assert caught.value.code() is grpc.StatusCode.ABORTED
        error = error_from_rpc(caught.value, "read")
        assert isinstance(error, CallerStalledError)
        assert re.search(
            rf"/cas.v1.Blobs/Read of '{digest}' did not read .* \d+\.\d seconds, "
            r"where 0\.5 is the limit, .* make it again",
            error.message,
        )
        assert [code for _, code in observer.ended] == ["ABORTED"]


def test_sender_that_stalls_is_broken_off(case: Case, allowed: Path) -> None:
    """Nothing of what it had sent is left."""
    ended = threading.Event()

    def requests() -> Any:
        yield blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader())
        yield blobs_pb2.UploadBlobRequest(data=os.urandom(PIECE_BYTES))
        ended.wait(60)

    with serve(case, allowed, patience=replace(PATIENT, stalled=0.5)) as service:
        call = service.blobs.Upload.future(requests())
        with pytest.raises(grpc.RpcError):
            call.result(timeout=60)
        ended.set()
        wait_for(lambda: service.server.running == 0)
        assert_nothing_left(case.backing)


def test_calls_whose_message_does_not_come_are_counted_and_others_refused(
    case: Case, allowed: Path
) -> None:
    """Callers who open more calls than may run and send nothing make nobody deaf."""
    with (
        serve(case, allowed) as service,
        service.connect() as channel,
        falling_silent() as silent,
    ):
        method: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(_GET)
        calls = [method.future(silent()) for _ in range(250)]
        wait_for(lambda: service.server.running == 128)
        with failing(grpc.StatusCode.UNAVAILABLE, "service-unavailable"):
            service.store.Version(store_pb2.VersionRequest(), timeout=30)
        with HealthProbe(service.socket) as probe:
            assert probe.answers(30)
        for call in calls:
            call.cancel()
        wait_for(lambda: service.server.running == 0)
        assert service.store.Version(store_pb2.VersionRequest()).cas


def test_probes_whose_message_does_not_come_make_nobody_deaf(case: Case, allowed: Path) -> None:
    """More of them than gRPC has threads: calls are answered, the service counts as answering, and
    after a short time health tells again what it is asked.
    """
    with (
        serve(case, allowed) as service,
        service.connect() as channel,
        falling_silent() as silent,
        HealthProbe(service.socket) as probe,
    ):
        method: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(_CHECK)
        calls = [method.future(silent()) for _ in range(250)]
        assert service.store.Version(store_pb2.VersionRequest(), timeout=30).cas
        assert probe.answers(30)
        take_patience(service, replace(PATIENT, first=0.1))
        assert {call.code() for call in calls} == {
            grpc.StatusCode.UNAVAILABLE,  # there was no place
            grpc.StatusCode.ABORTED,  # there was one, and it is free again
        }
        take_patience(service, PATIENT)
        health: Any = health_pb2_grpc.HealthStub(service.channel)
        wait_for(lambda: _is_serving(health))


def _is_serving(health: Any) -> bool:
    try:
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_caller_who_sends_no_message_is_broken_off(case: Case, allowed: Path) -> None:
    """A call whose first message does not come ends soon."""
    with (
        serve(case, allowed, patience=replace(PATIENT, first=0.5)) as service,
        falling_silent() as silent,
    ):
        method: grpc.StreamUnaryMultiCallable[bytes, bytes] = service.channel.stream_unary(_GET)
        call = method.future(silent())
        assert call.code() is grpc.StatusCode.ABORTED
        assert "did not send" in call.details()
        wait_for(lambda: service.server.running == 0)


def test_vault_that_may_not_be_written_is_not_written(case: Case, allowed: Path) -> None:
    """Every call that would change something is refused; the others go on."""
    strict = replace(case.settings, require_encryption=True)
    with Case.open(strict, writing=False) as guarded, serve(guarded, allowed) as service:
        _assert_only_looks_work(service)


def _assert_only_looks_work(service: Service) -> None:
    name, digest = f"{uuid.uuid4()}#0", "sha256:" + "0" * 64
    path = str(service.allowed / "x")
    changes: list[Any] = [
        lambda: list(service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=path))),
        lambda: service.blobs.Upload(iter(())),
        lambda: service.blobs.Unpin(blobs_pb2.UnpinBlobRequest(digest=digest)),
        lambda: list(service.blobs.Remove(blobs_pb2.RemoveBlobsRequest(digests=[digest]))),
        lambda: list(service.images.Import(images_pb2.ImportImageRequest(path=path))),
        lambda: service.images.Remove(images_pb2.RemoveImageRequest(name="x")),
        lambda: list(
            service.volumes.Prepare(volumes_pb2.PrepareVolumeRequest(name=name, image="x"))
        ),
        lambda: service.volumes.Activate(volumes_pb2.ActivateVolumeRequest(name=name)),
        lambda: service.volumes.Remove(volumes_pb2.RemoveVolumeRequest(name=name)),
        lambda: list(service.store.Check(store_pb2.CheckRequest(fix=True))),
        lambda: list(service.store.Prune(types_pb2.PruneRequest())),
        lambda: service.store.Recover(store_pb2.RecoverRequest()),
        lambda: service.store.CollectGarbage(store_pb2.CollectGarbageRequest()),
    ]

    for change in changes:
        with failing(grpc.StatusCode.FAILED_PRECONDITION, "vault-not-encrypted"):
            change()
    assert list(service.volumes.List(volumes_pb2.ListVolumesRequest())) == []
    assert list(service.store.Check(store_pb2.CheckRequest())) == []


def test_defect_is_told_without_a_traceback_and_logged_with_one(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong inside, the caller gets a status of ours."""

    def broken(_reference: str) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(service.case.images, "get", broken)
    with (
        caplog.at_level(logging.ERROR),
        failing(grpc.StatusCode.INTERNAL, "internal-error") as error,
    ):
        service.images.Get(images_pb2.GetImageRequest(name="x"))

    assert "ZeroDivisionError" in (error().details() or "")
    assert "Traceback" not in (error().details() or "")
    [record] = [each for each in caplog.records if each.exc_info]
    assert "method=/cas.v1.Images/Get" in record.getMessage()


def test_stop_lets_running_calls_end_and_takes_no_new_ones(case: Case, allowed: Path) -> None:
    """Work is finished within its time; listeners do not hold it up."""
    path = allowed / "x"
    path.write_bytes(os.urandom(3 * _MIB))
    with serve(case, allowed) as service, halted(Effect.FSYNC, "stage") as halt:
        listener = service.store.Events(store_pb2.EventsRequest())
        next(listener)
        call = service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path)))
        halt.await_reached()
        stopped: list[bool] = []
        stopper = threading.Thread(target=lambda: stopped.append(service.server.stop(60)))
        stopper.start()
        with pytest.raises(grpc.RpcError):
            for _ in listener:
                pass
        with connect(service.socket) as channel, pytest.raises(grpc.RpcError) as caught:
            Service(case, service.server, channel, service.socket, allowed).store.Version(
                store_pb2.VersionRequest()
            )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        halt.release()
        assert last(call).ingested.created
        stopper.join()
        assert stopped == [True]


def test_stop_breaks_off_what_takes_too_long(case: Case, allowed: Path) -> None:
    """It is undone before the stop returns."""
    path = allowed / "x"
    path.write_bytes(os.urandom(3 * _MIB))
    with serve(case, allowed) as service, halted(Effect.FSYNC, "stage") as halt:
        call = service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path)))
        halt.await_reached()
        stopped: list[bool] = []
        stopper = threading.Thread(target=lambda: stopped.append(service.server.stop(0.1)))
        stopper.start()
        with pytest.raises(grpc.RpcError):  # while its work still stands
            for _ in call:
                pass
        halt.release()
        stopper.join()
        assert stopped == [True]
    assert_nothing_left(case.backing)


def test_stop_waits_for_the_undoing_once(
    case: Case, allowed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Work that does not end costs the time for its undoing once, not again at the exit."""
    monkeypatch.setattr("cas.rpc.server.server._UNDO_SECONDS", 0.2)
    path = allowed / "x"
    path.write_bytes(os.urandom(_MIB))
    with serve(case, allowed) as service, halted(Effect.FSYNC, "stage") as halt:
        call = service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path)))
        halt.await_reached()
        with caplog.at_level(logging.WARNING):
            assert not service.server.stop(0.1)
        call.cancel()
        halt.release()
        wait_for(lambda: service.server.running == 0)
        assert service.server.stop(0)
    waited = [each for each in caplog.messages if each.startswith("calls do not end")]
    assert len(waited) == 1


def test_name_of_an_upload_forges_no_line_of_the_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """What a caller calls its bytes is one line of the log at most, and a short one."""
    header = blobs_pb2.UploadBlobHeader(
        name="x\nERROR forged\x1b[2J" + "y" * 10_000, digest="sha256:" + "0" * 64
    )
    messages = [
        blobs_pb2.UploadBlobRequest(header=header),
        blobs_pb2.UploadBlobRequest(data=b"1"),
        blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd()),
    ]
    with caplog.at_level(logging.INFO), pytest.raises(grpc.RpcError):
        service.blobs.Upload(iter(messages))
    [told] = [each for each in caplog.messages if each.startswith("call failed")]
    assert "forged" in told
    assert told.isprintable()
    assert len(told) < 2_000


def test_health_of_a_service_that_stops_is_told_until_its_end(case: Case, allowed: Path) -> None:
    """It is not serving: a probe hears so while running calls end, and a watcher with it."""
    path = allowed / "x"
    path.write_bytes(os.urandom(_MIB))
    with serve(case, allowed) as service, halted(Effect.FSYNC, "stage") as halt:
        health: Any = health_pb2_grpc.HealthStub(service.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        next(watch)
        call = service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path)))
        halt.await_reached()
        stopper = threading.Thread(target=service.server.stop, args=(60,))
        stopper.start()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        halt.release()
        assert last(call).ingested.created
        stopper.join()


def test_watcher_hears_that_the_service_stops_before_its_call_ends(
    case: Case, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the news is on its way while calls that last are being ended."""
    under_way, ended = threading.Event(), threading.Event()
    news = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)

    def serialised(response: Any) -> bytes:
        if response == news:
            under_way.set()
            assert ended.wait(WAIT_SECONDS)
        return bytes(response.SerializeToString())

    monkeypatch.setattr("cas.rpc.server.dispatch._serialise", serialised)
    with serve(case, allowed) as service:
        health: Any = health_pb2_grpc.HealthStub(service.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        next(watch)
        end_calls = service.server.calls.close

        def close() -> None:
            assert under_way.wait(WAIT_SECONDS)
            end_calls()
            ended.set()

        monkeypatch.setattr(service.server.calls, "close", close)
        stopper = threading.Thread(target=service.server.stop, args=(60,))
        stopper.start()
        assert next(watch) == news
        with pytest.raises(grpc.RpcError):
            next(watch)
        stopper.join()


def test_caller_who_is_silent_does_not_keep_the_service_from_its_end(
    case: Case, allowed: Path
) -> None:
    """A question that may be followed by others at any time."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    patience = replace(PATIENT, wanted=2)  # so that it looks every half second
    with serve(case, allowed, patience=patience) as service, falling_silent() as silent:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(service.channel)
        stream = stub.ServerReflectionInfo(silent(request))
        next(stream)
        [call] = service.server.calls._calls
        wait_for(lambda: call.seconds_at_peer() > 0.1)  # for the next question
        service.server.calls.close()
        wait_for(lambda: service.server.calls.await_end(0))


def test_listeners_do_not_keep_anybody_from_waiting_for_a_call_to_be_undone(
    service: Service,
) -> None:
    """As many events as may be listened to, and questions about the services as well."""
    listeners = [service.store.Events(store_pb2.EventsRequest()) for _ in range(64)]
    for listener in listeners:
        next(listener)
    service.store.Wait(store_pb2.WaitRequest(call="x"), timeout=30)
    for listener in listeners:
        listener.cancel()


def test_reflection_beyond_the_limit_is_told_to_come_again(case: Case, allowed: Path) -> None:
    """The status says that the service is busy, with our details."""
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with serve(case, allowed) as service, falling_silent() as silent:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(service.channel)
        streams = [stub.ServerReflectionInfo(silent(request)) for _ in range(8)]
        for stream in streams:
            next(stream)
        with failing(grpc.StatusCode.UNAVAILABLE, "service-unavailable"):
            next(stub.ServerReflectionInfo(silent(request)))
