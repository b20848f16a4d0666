"""The service ``grpc.health.v1.Health``, counted and bounded as every other."""

__all__ = ["HealthServicer"]

import threading
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2

from cas.errors import NotFoundError
from cas.model.cancellation import Cancellation
from cas.rpc.server.call import Call
from cas.rpc.server.registry import Kind

_Response = health_pb2.HealthCheckResponse
_FILE = cast("FileDescriptor", health_pb2.DESCRIPTOR)
_POLL_SECONDS = 0.5
_METHODS = frozenset({"check", "list", "watch"})


class HealthServicer:
    """Tells which services are worth calling; not serving until it is told to.

    Args:
        of_the_store: Full names of the services that need the store.
        always: Those that do not.
    """

    SERVICE: ServiceDescriptor = _FILE.services_by_name["Health"]
    READING = _METHODS
    UNGUARDED = _METHODS
    KINDS: Mapping[str, Kind] = MappingProxyType(
        {"check": Kind.PROBE, "list": Kind.PROBE, "watch": Kind.DESCRIBE}
    )

    def __init__(self, of_the_store: Iterable[str], *, always: Iterable[str]) -> None:
        self._changed = threading.Condition()
        self._of_the_store = ("", *of_the_store)
        self._statuses: dict[str, int] = dict.fromkeys(self._of_the_store, _Response.NOT_SERVING)
        self._statuses.update(dict.fromkeys(always, _Response.SERVING))
        self._closed = False

    def set_serving(self, *, serving: bool) -> None:
        """Say whether calls for the store are worth making."""
        status = _Response.SERVING if serving else _Response.NOT_SERVING
        self._set(dict.fromkeys(self._of_the_store, status))

    def close(self) -> None:
        """Say of all services, for good, that they are not worth calling."""
        self._set(dict.fromkeys(self._statuses, _Response.NOT_SERVING))
        self._closed = True

    def check(self, request: health_pb2.HealthCheckRequest, _call: Call) -> _Response:
        """Tell the status of one service."""
        status = self._statuses.get(request.service)
        if status is None:
            raise NotFoundError(f"there is no service {request.service[:100]!r}")
        return _Response(status=status)

    def list(self, _request: Any, _call: Call) -> Any:  # noqa: ANN401 - not in the stubs
        """Tell the status of every service."""
        statuses = {name: _Response(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]

    def watch(self, request: health_pb2.HealthCheckRequest, call: Call) -> Iterator[_Response]:
        """Tell the status of one service whenever it changes."""
        told = None
        while True:
            told = self._await_other(request.service, told, call.cancellation)
            yield _Response(status=told)

    def _await_other(self, name: str, told: int | None, cancel: Cancellation) -> int:
        with self._changed:
            while (status := self._statuses.get(name, _Response.SERVICE_UNKNOWN)) == told:
                cancel.check()
                self._changed.wait(_POLL_SECONDS)
            return status

    def _set(self, statuses: Mapping[str, int]) -> None:
        with self._changed:
            if not self._closed:
                self._statuses.update(statuses)
                self._changed.notify_all()
