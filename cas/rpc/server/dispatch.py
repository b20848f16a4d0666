"""From a declared service and its servicer to gRPC's handlers; the outermost border of a call.

Every call, whatever it is, passes here: it is counted, asked whether the store may be written,
given its :class:`Call`, and whatever it raises becomes a status. Nothing else escapes.
"""

__all__ = ["Dispatcher", "Servicer"]

import keyword
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from cas.errors import (
    CallerStalledError,
    CasError,
    InternalError,
    InterruptedOperationError,
    ServiceOpeningError,
    UsageError,
)
from cas.model.cancellation import begin_operation
from cas.model.printable import printable
from cas.rpc.server.call import Call, Turn
from cas.rpc.server.gate import Gate
from cas.rpc.server.registry import CallObserver, Kind, RunningCalls
from cas.rpc.server.request_number import begin_request
from cas.rpc.server.request_stream import received, received_apart
from cas.rpc.status import error_status
from cas.store.guard import VaultGuard
from cas.store.workers import WorkerPool

_log = logging.getLogger(__name__)

_LARGE_BYTES = 64 * 1024
_LOGGED = 4096
"""Characters of a message that the log repeats."""
_NAMING_FIELDS = ("digest", "name", "volume", "reference", "object", "path")
"""Where requests say what they are about; the first that is not empty is it."""
_HEADER_FIELD = "header"
"""Where the first message of an upload has them."""
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


class Servicer(Protocol):
    """The methods of one service: ``list_media_types`` for ``ListMediaTypes``.

    Each takes the request (an iterator of requests if it is a stream) and the :class:`Call`, and
    gives the response (an iterator of responses if it is a stream).

    Attributes:
        SERVICE: The declaration.
        READING: Methods that change nothing in the store, so that a vault that must not be written
            is good enough.
        UNGUARDED: Methods that need no store at all, and so work while the vault is locked.
        KINDS: What methods do that do not work.
    """

    SERVICE: ServiceDescriptor
    READING: frozenset[str]
    UNGUARDED: frozenset[str]
    KINDS: Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class _Method:
    """One method of one service.

    Args:
        path: As in ``/cas.v1.Blobs/Get``.
        request: Class of its requests.
        behaviour: The servicer's method.
        streamed: Its caller sends a stream of requests.
        reads: It changes nothing in the store.
        unguarded: It needs no store.
        kind: What it does.
    """

    path: str
    request: type[Message]
    behaviour: Callable[[Any, Call], Any]
    streamed: bool
    reads: bool
    unguarded: bool
    kind: Kind


class Dispatcher:
    """Makes handlers for one server.

    Args:
        guard: Says whether the store may be written.
        calls: Where calls are counted.
        large: Bounds the calls with large requests, which take a multiple of them in memory.
        workers: Threads for the calls' second halves, one for each that works.
        observer: Is told of each call.
    """

    def __init__(
        self,
        guard: VaultGuard,
        calls: RunningCalls,
        large: Gate,
        workers: WorkerPool,
        observer: CallObserver,
    ) -> None:
        self._guard = guard
        self._calls = calls
        self._large = large
        self._workers = workers
        self._observer = observer

    def handlers(
        self, kind: type[Servicer], find: Callable[[], Servicer]
    ) -> grpc.GenericRpcHandler:
        """Give the handlers of a service.

        Args:
            kind: What serves it.
            find: Gives that, for each call anew; may raise an error of ours instead.

        Raises:
            AttributeError: The servicer lacks a method that is declared; a mistake in this package.
        """
        service = kind.SERVICE
        made = {method.name: self._handler(kind, find, method) for method in service.methods}
        return grpc.method_handlers_generic_handler(service.full_name, made)

    def _handler(
        self, kind: type[Servicer], find: Callable[[], Servicer], declared: MethodDescriptor
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        name = _python_name(declared.name)
        method = _Method(
            path=f"/{declared.containing_service.full_name}/{declared.name}",
            request=GetMessageClass(declared.input_type),
            behaviour=_found(getattr(kind, name), find),
            streamed=declared.client_streaming,
            reads=name in kind.READING,
            unguarded=name in kind.UNGUARDED,
            kind=kind.KINDS.get(name, Kind.WORK),
        )
        # Requests come as bytes: what does not parse is the caller's mistake, not gRPC's failure.
        # And all as streams, of one request if there is one: the others gRPC would read before
        # anybody counts the call, in a thread that a caller who does not send it keeps for ever.
        if declared.server_streaming:
            return grpc.stream_stream_rpc_method_handler(
                lambda raw, context: self._stream(method, raw, context),
                response_serializer=_serialise,
            )
        return grpc.stream_unary_rpc_method_handler(
            lambda raw, context: self._single(method, raw, context),
            response_serializer=_serialise,
        )

    def _single(
        self, method: _Method, raw: Iterator[bytes], context: grpc.ServicerContext
    ) -> object:
        with (
            self._answering(method, context) as call,
            self._request(method, raw, call) as request,
        ):
            return method.behaviour(request, call)

    def _stream(
        self, method: _Method, raw: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[object]:
        with (
            self._answering(method, context) as call,
            self._request(method, raw, call) as request,
            closing(method.behaviour(request, call)) as responses,
        ):
            for response in responses:
                with call.at_peer(Turn.READ, in_grpc=True):
                    yield response
                call.moved(response.ByteSize())

    @contextmanager
    def _request(
        self, method: _Method, raw: Iterator[bytes], call: Call
    ) -> Iterator[Message | Iterator[Message]]:
        if method.streamed and method.kind is Kind.WORK:
            with received_apart(raw, call, self._workers) as messages:
                yield (_parsed(method, message, call) for message in messages)
            return
        messages = received(raw, call)
        if method.streamed:
            yield (_parsed(method, message, call) for message in messages)
            return
        only = next(messages, None)
        if only is None:
            raise UsageError(f"a call of {method.path} has one request; this one has none")
        with self._room_for(only, call):
            yield _parsed(method, only, call)

    def _room_for(self, raw: bytes, call: Call) -> AbstractContextManager[object]:
        if len(raw) > _LARGE_BYTES:
            return call.holding(self._large)
        return nullcontext()

    def _require_vault(self, method: _Method) -> None:
        if method.unguarded:
            return
        if method.reads:
            self._guard.check_open()
        else:
            self._guard.check_writable()

    def _cause(self, call: Call, error: CasError) -> CasError:
        """What was broken off, or failed because the vault is locked, says so."""
        if call.guarded:
            error = self._guard.cause_of(error)
        if call.broken_off is not None and isinstance(error, InterruptedOperationError):
            return call.broken_off
        return error

    @contextmanager
    def _answering(self, method: _Method, context: grpc.ServicerContext) -> Iterator[Call]:
        """Count a call and turn what it raises into its status."""
        begin_request()  # gRPC runs each call in a context of its own, which ends with it
        call = Call(method.path, context)
        begun = time.monotonic()
        self._observer.call_began(method.path)
        code = "CANCELLED"  # unless it comes to its end
        try:
            with self._calls.admitted(call, method.kind):
                begin_operation(call.cancellation)
                call.guarded = not method.unguarded
                self._require_vault(method)
                yield call
            code = "OK"
        except CasError as failure:
            error = self._cause(call, failure)
            code = error.grpc_status
            _end(context, _told(call, error))
        except Exception as error:  # noqa: BLE001 - the outermost border
            code = InternalError.grpc_status
            _end(context, _defect(call, error))
        except GeneratorExit:  # gRPC takes no more answers
            if call.broken_off is not None:
                code = call.broken_off.grpc_status
            raise
        finally:
            seconds = time.monotonic() - begun
            _log.debug("call ended method=%s code=%s seconds=%.4f", method.path, code, seconds)
            self._observer.call_ended(method.path, code, seconds)


def _found(
    behaviour: Callable[[Any, Any, Call], Any], find: Callable[[], Servicer]
) -> Callable[[Any, Call], Any]:
    return lambda request, call: behaviour(find(), request, call)


def _python_name(declared: str) -> str:
    name = _WORD_START.sub("_", declared).lower()
    return f"{name}_" if keyword.iskeyword(name) else name


def _parsed(method: _Method, raw: bytes, call: Call) -> Message:
    try:
        message = method.request.FromString(raw)
    except DecodeError as error:
        raise UsageError(
            f"the request of {method.path} is no {method.request.DESCRIPTOR.full_name}: {error}"
        ) from error
    call.object = call.object or _named(message)
    return message


def _named(request: Message) -> str:
    """Give what a request is about, as it says itself; empty if it names nothing."""
    header = getattr(request, _HEADER_FIELD, request)
    texts = (getattr(header, field, "") for field in _NAMING_FIELDS)
    return next((text for text in texts if isinstance(text, str) and text), "")


def _serialise(response: Message) -> bytes:
    return response.SerializeToString()


def _told(call: Call, error: CasError) -> CasError:
    """Log a failure, once; what callers do to themselves is of no interest to an operator."""
    expected = error.grpc_status in _CALLERS_OWN or isinstance(error, _TOLD_BEFORE)
    level = logging.INFO if expected else logging.WARNING
    _log.log(
        level,
        "call failed method=%s reference=%s error=%s",
        call.method,
        error.reference,
        printable(error.message[:_LOGGED]),  # it may quote what the caller sent
    )
    return error


_TOLD_BEFORE = (ServiceOpeningError, CallerStalledError)
_CALLERS_OWN = frozenset(
    {"CANCELLED", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"}
)


def _defect(call: Call, error: Exception) -> CasError:
    _log.error("defect in call method=%s", call.method, exc_info=error)
    return InternalError(
        f"internal error in {call.method}: {type(error).__name__}: {error}; this is a defect of "
        "cas, please report it with the service's log"
    )


def _end(context: grpc.ServicerContext, error: CasError) -> NoReturn:
    context.abort_with_status(error_status(error))
    raise error  # never reached: abort raises
