"""A service of a test's own, and the generated stubs to talk to it as a stranger would."""

__all__ = [
    "PATIENT",
    "Service",
    "connect",
    "error_info",
    "failing",
    "falling_silent",
    "last",
    "recover_until_nothing_is_left",
    "serve",
    "take_patience",
]

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from cas._gen.cas.v1 import (
    blobs_pb2_grpc,
    images_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
    vault_pb2_grpc,
    volumes_pb2_grpc,
)
from cas.app import Case
from cas.rpc.server import Server
from cas.rpc.server.registry import Patience
from tests.support.serving import PATIENT, server_of
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

_Message = TypeVar("_Message")
_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.use_local_subchannel_pool", 1),
    # Fixed windows: otherwise gRPC may take many MiB for a caller who does not read.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
)


@dataclass(frozen=True)
class Service:
    """A running server with a channel to it.

    Attributes:
        case: What it serves.
        server: The server.
        channel: A connection.
        socket: Where it listens.
        allowed: A directory whose files callers may name.
    """

    case: Case
    server: Server
    channel: grpc.Channel
    socket: Path
    allowed: Path

    @property
    def blobs(self) -> blobs_pb2_grpc.BlobsStub:
        """Stub."""
        return blobs_pb2_grpc.BlobsStub(self.channel)

    @property
    def images(self) -> images_pb2_grpc.ImagesStub:
        """Stub."""
        return images_pb2_grpc.ImagesStub(self.channel)

    @property
    def volumes(self) -> volumes_pb2_grpc.VolumesStub:
        """Stub."""
        return volumes_pb2_grpc.VolumesStub(self.channel)

    @property
    def volumesnapshots(self) -> volumes_pb2_grpc.VolumeSnapshotsStub:
        """Stub."""
        return volumes_pb2_grpc.VolumeSnapshotsStub(self.channel)

    @property
    def store(self) -> store_pb2_grpc.StoreStub:
        """Stub."""
        return store_pb2_grpc.StoreStub(self.channel)

    @property
    def vault(self) -> vault_pb2_grpc.VaultStub:
        """Stub."""
        return vault_pb2_grpc.VaultStub(self.channel)

    def connect(self) -> grpc.Channel:
        """A connection of its own."""
        return connect(self.socket)


def connect(socket: Path) -> grpc.Channel:
    """Connect as a stranger would; what its caller does not read stays with the service."""
    return grpc.insecure_channel(f"unix:{quote(str(socket))}", options=_OPTIONS)


@contextmanager
def serve(case: Case, allowed: Path, **options: Any) -> Iterator[Service]:
    """Serve a store as long as the context lasts."""
    own = case.settings.persist / f"{case.settings.namespace}.sock"
    socket = case.settings.service_address or own
    with (
        server_of(case, socket, **options) as server,
        connect(socket) as channel,
    ):
        server.set_serving(True)
        yield Service(case, server, channel, socket, allowed)


def take_patience(service: Service, patience: Patience) -> None:
    """Change how long callers are waited for, from now on."""
    service.server.calls._patience = patience


def last(steps: Iterable[_Message]) -> _Message:
    """The last message of a stream, which holds the result."""
    *_, message = steps
    return message


def recover_until_nothing_is_left(service: Service) -> None:
    """See that recoveries take what a containerd was asked for before it stood still.

    It works that off one after the other when it goes on, so that the last of it may come when the
    store looked clean already.
    """
    left: list[AssertionError] = []

    def is_clean() -> bool:
        service.store.Recover(store_pb2.RecoverRequest())
        try:
            assert_nothing_left(service.case.backing)
        except AssertionError as error:
            left[:] = [error]
            return False
        return True

    try:
        wait_for(is_clean)
    except AssertionError as error:
        raise error from left[-1]


def error_info(error: grpc.RpcError) -> ErrorInfo:
    """The details that an error carries."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None, error
    [packed] = status.details
    info = ErrorInfo()
    assert packed.Unpack(info)
    return info


@contextmanager
def failing(code: grpc.StatusCode, reference: str) -> Iterator[Callable[[], grpc.RpcError]]:
    """Expect a call to fail with a status and our reference; gives the error afterwards."""
    caught: list[grpc.RpcError] = []
    with pytest.raises(grpc.RpcError) as raised:
        yield lambda: caught[0]
    caught.append(raised.value)
    assert raised.value.code() is code, raised.value
    info = error_info(raised.value)
    assert (info.reason, info.domain) == (reference, "cas.lfedge.org"), raised.value


@contextmanager
def falling_silent() -> Iterator[Callable[..., Iterator[Any]]]:
    """Give callers who send nothing after their first messages until the context is left."""
    gone = threading.Event()

    def silent(*messages: object) -> Iterator[Any]:
        yield from messages
        gone.wait()

    try:
        yield silent
    finally:
        gone.set()
