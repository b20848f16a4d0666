"""Errors survive the way over the wire: class, message, details."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from cas import errors
from cas.errors import (
    BlobNotFoundError,
    CallerStalledError,
    CasError,
    DeadlineExceededError,
    IntegrityError,
    InternalError,
    LimitExceededError,
    LockTimeoutError,
    ServiceUnavailableError,
    UnavailableError,
    UsageError,
)
from cas.rpc.status import error_from_message, error_from_rpc, error_message, error_status

Wire = Callable[[grpc.Status | tuple[grpc.StatusCode, str]], grpc.RpcError]

TREE: list[type[CasError]] = [getattr(errors, name) for name in errors.__all__]


_METHOD = "/test/Fail"


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """Gives what a client sees of a call that a server ended with the given status."""
    endings: list[grpc.Status | tuple[grpc.StatusCode, str]] = []

    def fail(_request: bytes, context: grpc.ServicerContext) -> bytes:
        ending = endings.pop()
        if isinstance(ending, grpc.Status):
            context.abort_with_status(ending)
        context.abort(*ending)

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Fail": grpc.unary_unary_rpc_method_handler(fail)
    }
    address = f"unix:{tmp_path_factory.mktemp('wire')}/socket"
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", handlers)])
        server.add_insecure_port(address)
        server.start()
        with grpc.insecure_channel(address) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)

            def call(ending: grpc.Status | tuple[grpc.StatusCode, str]) -> grpc.RpcError:
                endings.append(ending)
                with pytest.raises(grpc.RpcError) as caught:
                    method(b"")
                return caught.value

            yield call
        server.stop(None).wait()


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_error_over_the_wire_is_the_same_error(wire: Wire, cls: type[CasError]) -> None:
    """Class, message and details of every error of the tree arrive; its status is documented."""
    sent = cls("cannot do it on größe", expected=1, path="/x")

    arrived = error_from_rpc(wire(error_status(sent)), "try")

    assert error_status(sent).code is grpc.StatusCode[cls.grpc_status]
    assert type(arrived) is cls
    assert arrived.as_document() == sent.as_document()
    assert arrived.temporary is sent.temporary


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_error_of_one_object_as_message_is_the_same_error(cls: type[CasError]) -> None:
    """Errors within an answer arrive whole as well."""
    sent = cls("cannot do it", digest="sha256:0")

    arrived = error_from_message(error_message(sent))

    assert type(arrived) is cls
    assert arrived.as_document() == sent.as_document()


def test_error_from_a_newer_service_becomes_its_family() -> None:
    """An unknown reference is still known by its kind."""
    message = error_message(LockTimeoutError("x"))
    message.reference = "no-such-reference"

    assert type(error_from_message(message)) is errors.ConflictError


def test_subclass_of_an_adapter_arrives_as_its_public_class(wire: Wire) -> None:
    """Private classes with a public reference do not leak."""

    class _NearerError(LockTimeoutError):
        pass

    assert type(error_from_rpc(wire(error_status(_NearerError("x"))), "try")) is LockTimeoutError


def test_error_of_great_length_is_cut_below_what_clients_take(wire: Wire) -> None:
    """The trailers stay below 8 KiB, whatever the texts are."""
    sent = BlobNotFoundError("ü" * 10_000, **{f"key{n}": "ä" * 3000 for n in range(50)})

    status = error_status(sent)
    arrived = error_from_rpc(wire(error_status(sent)), "try")

    encoded = sum(len(value) for _, value in status.trailing_metadata) * 4 / 3
    assert encoded + 3 * len(status.details.encode()) < 8 * 1024
    assert type(arrived) is BlobNotFoundError
    assert arrived.message.endswith("…")


def test_error_with_undecodable_file_name_is_escaped(wire: Wire) -> None:
    """A name that is no UTF-8 cannot break the answer."""
    sent = IntegrityError("bad \udcff", path="/\udcfe")

    arrived = error_from_rpc(wire(error_status(sent)), "try")

    assert arrived.message == "bad \\xff"
    assert arrived.details == {"path": "/\\xfe"}


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (grpc.StatusCode.UNAVAILABLE, ServiceUnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceededError),
        (grpc.StatusCode.CANCELLED, ServiceUnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitExceededError),
        (grpc.StatusCode.ABORTED, CallerStalledError),
        (grpc.StatusCode.UNIMPLEMENTED, UsageError),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.INTERNAL, InternalError),
    ],
)
def test_status_that_grpc_made_itself_has_a_class(
    wire: Wire, code: grpc.StatusCode, cls: type[CasError]
) -> None:
    """A status without details still says which family it is."""
    error = error_from_rpc(wire((code, "Socket closed")), "list blobs")

    assert type(error) is cls
    assert "list blobs" in error.message
    assert "Socket closed" in error.message


def test_every_status_code_without_details_becomes_an_error_of_ours(wire: Wire) -> None:
    """No code falls through."""
    for code in set(grpc.StatusCode) - {grpc.StatusCode.OK}:
        assert isinstance(error_from_rpc(wire((code, "nothing")), "try"), CasError)


def test_unavailable_service_is_temporary() -> None:
    """A caller may try again."""
    assert issubclass(ServiceUnavailableError, UnavailableError)
    assert ServiceUnavailableError.temporary
