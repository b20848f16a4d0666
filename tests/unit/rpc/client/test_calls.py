"""Calls that are broken off, answered early or never, against a service that does as it is told."""

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from cas._gen.cas.v1 import blobs_pb2, blobs_pb2_grpc, store_pb2, store_pb2_grpc, types_pb2
from cas.errors import (
    DeadlineExceededError,
    InternalError,
    InterruptedOperationError,
    ServiceOpeningError,
    ServiceUnavailableError,
    SourceNotFoundError,
)
from cas.model.cancellation import Cancellation
from cas.model.progress import NO_PROGRESS
from cas.rpc.client.calls import Calls
from cas.rpc.client.opening import NO_WAIT, Wait
from cas.rpc.client.running import Send
from cas.rpc.status import error_status
from tests.support.daemon import WAIT_SECONDS


class _Store(store_pb2_grpc.StoreServicer):
    """Checks for ever, and takes its time to undo it."""

    def __init__(self) -> None:
        self.under_way = threading.Event()
        self.broken_off = threading.Event()
        self.may_undo = threading.Event()
        self.undone = threading.Event()
        self.names: set[str] = set()
        self.holds_back = False
        self.refusals = 0
        self.opening = 0
        self.hangs = False
        self.seconds_left: list[float] = []

    def refuse_while_opening(self, context: grpc.ServicerContext) -> None:
        if self.opening:
            self.opening -= 1
            context.abort_with_status(error_status(ServiceOpeningError("opening")))

    def Version(  # noqa: N802
        self, request: store_pb2.VersionRequest, context: grpc.ServicerContext
    ) -> store_pb2.VersionResponse:
        self.seconds_left.append(context.time_remaining())
        self.refuse_while_opening(context)
        if self.hangs:
            context.add_callback(self.broken_off.set)
            self.under_way.set()
            assert self.broken_off.wait(WAIT_SECONDS)
        return store_pb2.VersionResponse()

    def Check(  # noqa: N802
        self, request: store_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> Iterator[store_pb2.CheckResponse]:
        self.names.add(str(dict(context.invocation_metadata())["cas-call"]))
        context.add_callback(self.broken_off.set)
        if request.read_data:
            yield store_pb2.CheckResponse(progress=types_pb2.Progress())
        self.under_way.set()
        assert self.broken_off.wait(WAIT_SECONDS)
        assert self.may_undo.wait(WAIT_SECONDS)
        self.undone.set()

    def Wait(  # noqa: N802
        self, request: store_pb2.WaitRequest, context: grpc.ServicerContext
    ) -> store_pb2.WaitResponse:
        if self.refusals:
            self.refusals -= 1
            context.abort_with_status(error_status(ServiceUnavailableError("no room")))
        if request.call not in self.names:
            return store_pb2.WaitResponse()
        if self.holds_back:
            context.add_callback(self.may_undo.set)
        else:
            self.may_undo.set()
        assert self.undone.wait(WAIT_SECONDS)
        return store_pb2.WaitResponse()

    def Usage(  # noqa: N802
        self, request: store_pb2.UsageRequest, context: grpc.ServicerContext
    ) -> Iterator[store_pb2.UsageResponse]:
        self.refuse_while_opening(context)
        yield store_pb2.UsageResponse(progress=types_pb2.Progress())


class _Blobs(blobs_pb2_grpc.BlobsServicer):
    """Answers an upload whose digest it was told, and keeps what else it gets."""

    def __init__(self, store: _Store) -> None:
        self._store = store
        self.received: list[bytes] = []
        self.whole = False
        self.begun = threading.Event()
        self.ended = threading.Event()

    def Upload(  # noqa: N802
        self,
        request_iterator: Iterator[blobs_pb2.UploadBlobRequest],
        context: grpc.ServicerContext,
    ) -> blobs_pb2.IngestedBlob:
        context.add_callback(self.ended.set)
        self._store.refuse_while_opening(context)
        header = next(request_iterator).header
        if header.digest:
            return blobs_pb2.IngestedBlob(digest=header.digest)
        for request in request_iterator:
            self.received.append(request.data)
            self.begun.set()
            self.whole = request.HasField("end")
        return blobs_pb2.IngestedBlob(size=sum(map(len, self.received)))


@pytest.fixture
def store() -> _Store:
    """The half that answers for the store."""
    return _Store()  # type: ignore[abstract]  # the rest is not there


@pytest.fixture
def blobs(store: _Store) -> _Blobs:
    """The half that takes blobs."""
    return _Blobs(store)  # type: ignore[abstract]  # the rest is not there


@pytest.fixture
def calls(store: _Store, blobs: _Blobs, tmp_path: Path) -> Iterator[Calls]:
    """Calls to both."""
    address = f"unix:{tmp_path}/socket"
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        store_pb2_grpc.add_StoreServicer_to_server(store, server)
        blobs_pb2_grpc.add_BlobsServicer_to_server(blobs, server)
        server.add_insecure_port(address)
        server.start()
        with grpc.insecure_channel(address) as channel:
            yield Calls(channel)
        server.stop(None).wait()


def _check(
    calls: Calls, cancel: Cancellation | None = None, *, begun: bool = True
) -> Generator[store_pb2.CheckResponse, None, None]:
    return calls.stream(
        store_pb2_grpc.StoreStub(calls.channel).Check,
        store_pb2.CheckRequest(read_data=begun),
        action="check",
        cancel=cancel,
    )


def _upload(
    calls: Calls, *requests: blobs_pb2.UploadBlobRequest, cancel: Cancellation | None = None
) -> blobs_pb2.IngestedBlob:
    def produce(send: Send[blobs_pb2.UploadBlobRequest]) -> None:
        for request in requests:
            send(request)

    upload = blobs_pb2_grpc.BlobsStub(calls.channel).Upload
    return calls.upload(upload, produce, action="ingest", cancel=cancel)


def test_stream_that_is_closed_early_is_undone_before_the_caller_goes_on(
    calls: Calls, store: _Store
) -> None:
    """Whoever stops looking can rely on nothing being under way."""
    with closing(_check(calls)) as answers:
        next(answers)
        assert store.under_way.wait(WAIT_SECONDS)

    assert store.undone.is_set()


def test_service_without_room_for_the_question_is_asked_again_until_the_call_is_undone(
    calls: Calls, store: _Store
) -> None:
    """Being told to come again is no reason to go on while something is under way."""
    store.refusals = 2
    with closing(_check(calls)) as answers:
        next(answers)
        assert store.under_way.wait(WAIT_SECONDS)

    assert store.refusals == 0
    assert store.undone.is_set()


def test_cancellation_by_another_thread_ends_a_silent_call(calls: Calls, store: _Store) -> None:
    """Though no answer comes that would wake the caller."""
    cancel = Cancellation()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(list, _check(calls, cancel, begun=False))
        assert store.under_way.wait(WAIT_SECONDS)
        cancel.set()

        with pytest.raises(InterruptedOperationError):
            answer.result(WAIT_SECONDS)

    assert store.undone.is_set()


def test_interrupt_in_the_caller_is_passed_on_when_the_call_is_undone(
    calls: Calls, store: _Store
) -> None:
    """Ctrl-C comes out as Ctrl-C."""
    answers = _check(calls)
    next(answers)
    assert store.under_way.wait(WAIT_SECONDS)

    with pytest.raises(KeyboardInterrupt):
        answers.throw(KeyboardInterrupt)

    assert store.undone.is_set()


def test_service_that_cannot_tell_of_an_end_is_warned_of(
    calls: Calls, store: _Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller goes on, and whoever reads the log knows that it may be too early."""
    monkeypatch.setattr("cas.rpc.client.calls._UNDO_SECONDS", 0.1)
    store.holds_back = True

    with caplog.at_level(logging.WARNING, "cas"), closing(_check(calls)) as answers:
        next(answers)
        assert store.under_way.wait(WAIT_SECONDS)

    assert "did not say that a call was undone" in caplog.text


def test_deadline_ends_a_call(calls: Calls, store: _Store) -> None:
    """A silent service does not hold a caller who has set one."""
    with pytest.raises(DeadlineExceededError):
        list(_check(calls.with_deadline(0.2), begun=False))
    store.may_undo.set()


def test_long_call_without_a_result_is_an_error(calls: Calls) -> None:
    """Progress alone is no answer."""
    with pytest.raises(InternalError, match="without an answer"):
        calls.outcome(
            store_pb2_grpc.StoreStub(calls.channel).Usage,
            store_pb2.UsageRequest(),
            action="measure",
            progress=NO_PROGRESS,
        )


def test_upload_arrives_whole_and_in_order(calls: Calls, blobs: _Blobs) -> None:
    """Header first, then every chunk."""
    chunks = [bytes([number]) * 1000 for number in range(50)]

    answer = _upload(
        calls,
        blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader()),
        *(blobs_pb2.UploadBlobRequest(data=chunk) for chunk in chunks),
        blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd()),
    )

    assert (answer.size, blobs.received) == (50_000, [*chunks, b""])
    assert blobs.whole


def test_upload_that_is_answered_early_sends_no_more(calls: Calls, blobs: _Blobs) -> None:
    """A blob that is there costs no bytes."""
    sent = []

    def produce(send: Send[blobs_pb2.UploadBlobRequest]) -> None:
        send(blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader(digest="d")))
        while True:
            send(blobs_pb2.UploadBlobRequest(data=bytes(1024 * 1024)))
            sent.append(1)

    answer = calls.upload(blobs_pb2_grpc.BlobsStub(calls.channel).Upload, produce, action="ingest")

    assert answer.digest == "d"
    assert len(sent) < 100


def test_upload_whose_source_fails_is_never_taken_for_complete(calls: Calls, blobs: _Blobs) -> None:
    """No message says that it is, and the caller sees its own error."""

    def produce(send: Send[blobs_pb2.UploadBlobRequest]) -> None:
        send(blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader()))
        send(blobs_pb2.UploadBlobRequest(data=b"half"))
        assert blobs.begun.wait(WAIT_SECONDS)
        raise SourceNotFoundError("gone")

    with pytest.raises(SourceNotFoundError, match="gone"):
        calls.upload(blobs_pb2_grpc.BlobsStub(calls.channel).Upload, produce, action="ingest")

    assert blobs.ended.wait(WAIT_SECONDS)
    assert not blobs.whole


def _version(calls: Calls, cancel: Cancellation | None = None) -> None:
    method = store_pb2_grpc.StoreStub(calls.channel).Version
    calls.unary(method, store_pb2.VersionRequest(), action="ask", cancel=cancel)


def _usage(calls: Calls) -> None:
    method = store_pb2_grpc.StoreStub(calls.channel).Usage
    assert len(list(calls.stream(method, store_pb2.UsageRequest(), action="measure"))) == 1


def _stream_in(calls: Calls, cancel: Cancellation | None = None) -> None:
    header = blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader())
    end = blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd())
    sent = iter([header, blobs_pb2.UploadBlobRequest(data=b"once"), end])  # it cannot be had again
    assert _upload(calls, *sent, cancel=cancel).size == 4


@pytest.mark.parametrize("call", [_version, _usage, _stream_in])
def test_call_of_a_service_that_opens_its_store_is_made_again(
    call: Callable[[Calls], None], calls: Calls, store: _Store
) -> None:
    """Who has connected before it was started again need not know."""
    store.opening = 3

    call(Calls(calls.channel, wait=Wait(WAIT_SECONDS)))

    assert store.opening == 0


@pytest.mark.parametrize("call", [_version, _usage, _stream_in])
@pytest.mark.parametrize(
    ("seconds", "wait"), [(None, NO_WAIT), (None, Wait(0.15)), (0.15, Wait(WAIT_SECONDS))]
)
def test_wait_for_a_service_that_opens_its_store_ends(
    call: Callable[[Calls], None],
    seconds: float | None,
    wait: Wait,
    calls: Calls,
    store: _Store,
) -> None:
    """After the time that was given, and never later than the deadline of the call."""
    store.opening = 10_000

    with pytest.raises((ServiceOpeningError, DeadlineExceededError)):
        call(Calls(calls.channel, seconds, wait=wait))


def test_wait_for_a_service_that_opens_its_store_can_be_broken_off(
    calls: Calls, store: _Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever may break off the call."""
    monkeypatch.setattr("cas.rpc.client.opening._SILENT_SECONDS", 0.0)
    store.opening, cancel = 10_000, Cancellation()

    with pytest.raises(InterruptedOperationError):
        list(
            Calls(calls.channel, wait=Wait(WAIT_SECONDS, on_wait=cancel.set)).stream(
                store_pb2_grpc.StoreStub(calls.channel).Usage,
                store_pb2.UsageRequest(),
                action="measure",
                cancel=cancel,
            )
        )


@pytest.mark.parametrize("call", [_version, _stream_in])
def test_call_of_a_service_that_hangs_can_be_broken_off(
    call: Callable[..., None], calls: Calls, store: _Store
) -> None:
    """Also before anything of it was sent."""
    store.hangs, cancel = True, Cancellation()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, Calls(calls.channel, wait=Wait(WAIT_SECONDS)), cancel)
        assert store.under_way.wait(WAIT_SECONDS)
        cancel.set()
        try:
            with pytest.raises(InterruptedOperationError):
                answer.result(WAIT_SECONDS)
        finally:
            store.broken_off.set()


def test_wait_before_an_upload_uses_up_its_deadline(calls: Calls, store: _Store) -> None:
    """It is one for all that is asked, not for each question."""
    store.opening, seconds = 11, 20.0

    _stream_in(Calls(calls.channel, seconds, wait=Wait(WAIT_SECONDS)))

    assert store.seconds_left[-1] < seconds - 0.5  # gRPC tells no difference of 3 %
