"""The services that every gRPC server should have: health and reflection."""

__all__ = ["StandardServices"]

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from cas.errors import CasError
from cas.rpc.server.call import Call
from cas.rpc.server.registry import RunningCalls
from cas.rpc.status import error_status

_REFLECTION = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class StandardServices:
    """Health and reflection of one server; not serving until it is told to.

    Args:
        services: Full names of what it serves of the store.
        always: Those of what it serves whatever becomes of that.
        calls: Where calls are counted.
    """

    def __init__(
        self, services: Sequence[str], *, always: Sequence[str], calls: RunningCalls
    ) -> None:
        self._names = ("", *services)
        self._health = health.HealthServicer()
        self._reflection = _Reflection(
            [*services, *always, health.SERVICE_NAME, reflection.SERVICE_NAME], calls
        )
        for name in always:
            self._health.set(name, _SERVING)
        self.set_serving(serving=False)

    def register(self, server: grpc.Server) -> None:
        """Let a server answer them."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        add = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        add(self._reflection, server)  # type: ignore[no-untyped-call]

    def set_serving(self, *, serving: bool) -> None:
        """Say whether calls are worth making."""
        for name in self._names:
            self._health.set(name, _SERVING if serving else _NOT_SERVING)

    def close(self) -> None:
        """Say, for good, that they are not."""
        self._health.enter_graceful_shutdown()


class _Reflection(reflection.ReflectionServicer):
    """Counts its streams, since they may stay open for ever."""

    def __init__(self, services: Sequence[str], calls: RunningCalls) -> None:
        super().__init__(services)
        self._calls = calls

    def ServerReflectionInfo(  # noqa: N802 - the protocol's name
        self,
        request_iterator: Iterable[reflection_pb2.ServerReflectionRequest],
        context: Any,  # noqa: ANN401 - the stub allows two kinds
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answer questions about the services."""
        call = Call(_REFLECTION, context)
        try:
            with (
                self._calls.admitted(call, lingers=True),
                call.cancellation.notifying(call.break_off),
            ):
                yield from super().ServerReflectionInfo(request_iterator, context)
        except CasError as error:
            context.abort_with_status(error_status(error))
