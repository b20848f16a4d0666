"""Whether a service answers, asked as anybody else would ask it."""

__all__ = ["HealthProbe"]

from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import grpc
from grpc_health.v1 import health_pb2

from cas.rpc.status import is_told

_METHOD = "/grpc.health.v1.Health/Check"
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 1000))


class HealthProbe:
    """One connection to a service, kept so that no flood of others can shut it out.

    A context manager.

    Args:
        socket: The service's.
    """

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{quote(str(socket))}", options=_OPTIONS)
        self._check = self._channel.unary_unary(
            _METHOD,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    def answers(self, seconds: float) -> bool:
        """Tell whether health answers within so many seconds, be it that it is not serving.

        That the service has no room for the question is an answer of its own; a status that gRPC
        made is none.
        """
        try:
            self._check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError as error:
            return is_told(error)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()
