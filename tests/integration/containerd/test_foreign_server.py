"""Servers that are too old, too bare or not containerd at all, over real gRPC."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from cas._gen.containerd.services.introspection.v1 import (
    introspection_pb2,
    introspection_pb2_grpc,
)
from cas._gen.containerd.services.version.v1 import version_pb2, version_pb2_grpc
from cas.containerd.client import Containerd
from cas.errors import DaemonVersionError
from tests.support.daemon import persist_directory


class _Version(version_pb2_grpc.VersionServicer):
    def __init__(self, text: str) -> None:
        self._text = text

    def Version(  # noqa: N802 - gRPC's name
        self, request: Empty, context: Any
    ) -> version_pb2.VersionResponse:
        return version_pb2.VersionResponse(version=self._text)


class _Introspection(introspection_pb2_grpc.IntrospectionServicer):
    def Plugins(  # noqa: N802 - gRPC's name
        self, request: introspection_pb2.PluginsRequest, context: Any
    ) -> introspection_pb2.PluginsResponse:
        return introspection_pb2.PluginsResponse()

    def Server(  # noqa: N802 - gRPC's name
        self, request: Empty, context: Any
    ) -> introspection_pb2.ServerResponse:
        return introspection_pb2.ServerResponse()


@contextmanager
def _server(version: str | None) -> Iterator[Path]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    if version is not None:
        version_pb2_grpc.add_VersionServicer_to_server(_Version(version), server)
    introspection_pb2_grpc.add_IntrospectionServicer_to_server(_Introspection(), server)
    with persist_directory() as directory:
        socket = directory / "s"
        server.add_insecure_port(f"unix://{socket}")
        server.start()
        try:
            yield socket
        finally:
            server.stop(None).wait()


@pytest.mark.parametrize("version", ["1.5.18", "v1.5.0~ds1", "0.2.9"])
def test_connect_to_an_old_version_names_both_versions(version: str) -> None:
    """An operator learns what to upgrade to what."""
    with (
        _server(version) as socket,
        pytest.raises(DaemonVersionError, match=rf"{version}.*1\.6\.0"),
    ):
        Containerd.connect(socket, namespace="t", snapshotter="overlayfs")


@pytest.mark.parametrize("version", ["1.6.0", "2.1.9+unknown", "of unknown origin", None])
def test_connect_to_a_server_without_the_services_is_unsuitable(version: str | None) -> None:
    """A containerd that lost its database answers like this, and so does any other server."""
    with _server(version) as socket, pytest.raises(DaemonVersionError):
        Containerd.connect(socket, namespace="t", snapshotter="overlayfs")
