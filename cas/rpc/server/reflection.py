"""The service ``grpc.reflection.v1alpha.ServerReflection``, counted and bounded as every other."""

__all__ = ["ReflectionServicer"]

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import cast

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from cas.rpc.server.call import Call
from cas.rpc.server.registry import Kind

_FILE = cast("FileDescriptor", reflection_pb2.DESCRIPTOR)
_METHODS = frozenset({"server_reflection_info"})


class ReflectionServicer:
    """Describes the services, so that tools need no declarations.

    Args:
        services: Their full names.
    """

    SERVICE: ServiceDescriptor = _FILE.services_by_name["ServerReflection"]
    READING = _METHODS
    UNGUARDED = _METHODS
    KINDS: Mapping[str, Kind] = MappingProxyType({"server_reflection_info": Kind.DESCRIBE})

    def __init__(self, services: Iterable[str]) -> None:
        self._answers = reflection.ReflectionServicer(services)

    def server_reflection_info(
        self, requests: Iterator[reflection_pb2.ServerReflectionRequest], _call: Call
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answer questions about the services."""
        # The context is of no use to it.
        yield from self._answers.ServerReflectionInfo(requests, None)  # type: ignore[arg-type]
