"""A running call, without a server."""

from typing import TYPE_CHECKING, cast

from cas.errors import CallerStalledError
from cas.rpc.server.call import Call, Turn

if TYPE_CHECKING:
    import grpc


class _Context:
    """Of a grpcio that has nothing but what it declares."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def add_callback(self, _callback: object) -> bool:
        return True

    def invocation_metadata(self) -> tuple[()]:
        return ()


def test_call_of_a_grpc_that_ends_it_without_words_is_ended_nevertheless() -> None:
    """Whoever waits within gRPC's library is woken in any case."""
    context = _Context()
    call = Call("/test/Read", cast("grpc.ServicerContext", context))

    with call.at_peer(Turn.READ, in_grpc=True):
        call.break_off(CallerStalledError("too slow"))

    assert context.cancelled
