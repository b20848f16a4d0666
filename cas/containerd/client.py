"""The connection to one containerd: what the rest of the program sees of it.

Importing this module loads grpc, which takes a tenth of a second: importers that may not need it
do so late.
"""

__all__ = ["Containerd", "DaemonFacts"]

import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cas.containerd.content import ContentStore
from cas.containerd.diff import Differ
from cas.containerd.events import Events
from cas.containerd.images import Images
from cas.containerd.introspection import DaemonFacts, read_facts
from cas.containerd.leases import Leases
from cas.containerd.namespaces import Namespaces, check_namespace
from cas.containerd.snapshots import Snapshots
from cas.containerd.socket_path import check_socket_path
from cas.containerd.transport import ANSWER_SECONDS, Transport, open_channel
from cas.errors import DaemonUnavailableError, DeniedError, NotFoundError
from cas.model.digest import Digest
from cas.model.records import LeaseID

_RETRY_SECONDS = 0.02


class Containerd:
    """containerd's services, seen from one namespace; safe to share between threads.

    Get one from :meth:`connect`. A connection that breaks comes back by itself: calls meanwhile
    raise ``DaemonUnavailableError``.
    """

    def __init__(self, transport: Transport, facts: DaemonFacts, snapshotter: str) -> None:
        self._transport = transport
        self.facts = facts
        self.leases = Leases(transport)
        self.content = ContentStore(transport)
        self.images = Images(transport)
        self.snapshots = Snapshots(transport, snapshotter, self.leases)
        self.diff = Differ(transport, self.leases)
        self.namespaces = Namespaces(transport)
        self.events = Events(transport)

    @classmethod
    def connect(
        cls, socket: Path, *, namespace: str, snapshotter: str, wait_seconds: float = 0.0
    ) -> Self:
        """Connect and make sure that containerd answers and has the services.

        Args:
            socket: Its unix socket.
            namespace: Namespace of all calls; made by the first object in it.
            snapshotter: Snapshotter plugin of all snapshots; see ``facts.snapshotter_error``.
            wait_seconds: How long to try while it does not answer.

        Raises:
            DaemonUnavailableError: It does not answer.
            DeadlineExceededError: It accepts calls and does not answer them.
            DaemonVersionError: It is too old or lacks a service.
            DeniedError: The socket may not be used by this user.
            SocketPathError: The path is too long for a socket.
            InvalidNameError: The namespace's name is impossible.
        """
        check_socket_path(socket)
        check_namespace(namespace)
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                return cls._connect_once(socket, namespace, snapshotter)
            except DaemonUnavailableError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_RETRY_SECONDS)

    @classmethod
    def _connect_once(cls, socket: Path, namespace: str, snapshotter: str) -> Self:
        _check_access(socket)
        transport = Transport(open_channel(socket), namespace)
        try:
            facts = read_facts(transport.with_deadline(ANSWER_SECONDS), snapshotter)
            connection = cls(transport, facts, snapshotter)
            connection.health()
        except BaseException:
            transport.channel.close()
            raise
        return connection

    @property
    def namespace(self) -> str:
        """The namespace of all calls."""
        return self._transport.namespace

    @property
    def blobs_directory(self) -> Path | None:
        """containerd's ``blobs/sha256`` if its content store lies within our reach, else None.

        containerd makes the directory with its first blob. A directory may also be another
        containerd's that happens to have the same path: prove it before relying on it.
        """
        root = self.facts.content_root
        if root is None or not root.parent.is_dir():
            return None
        return root / "blobs" / "sha256"

    def in_namespace(self, namespace: str) -> "Containerd":
        """Give the same connection for another namespace; closing either closes both.

        Raises:
            InvalidNameError: The name is impossible.
        """
        check_namespace(namespace)
        return Containerd(
            self._transport.in_namespace(namespace), self.facts, self.snapshots.snapshotter
        )

    def health(self, seconds: float = ANSWER_SECONDS) -> None:
        """Make real calls to content and leases: containerd reports itself healthy without them.

        Args:
            seconds: How long each may take.

        Raises:
            DaemonUnavailableError: It does not answer.
            DeadlineExceededError: It does not answer in time.
            DaemonVersionError: It runs without a service, as it does when its database is broken.
        """
        transport = self._transport.with_deadline(seconds)
        Leases(transport).exists(LeaseID("cas-health"))
        with suppress(NotFoundError):
            ContentStore(transport).info(Digest.of(b""))

    def close(self) -> None:
        """Close the channel; running calls end. Idempotent."""
        self._transport.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_access(socket: Path) -> None:
    """Find what gRPC would only call unavailable."""
    try:
        exists = socket.exists()
    except PermissionError:
        exists = True
    if not exists:
        raise DaemonUnavailableError(
            f"containerd does not answer: there is no socket {socket}; start it with `cas serve`, "
            "or with `cas containerd run`, or name another with --address",
            socket=socket,
        )
    if not os.access(socket, os.R_OK | os.W_OK):
        raise DeniedError(
            f"containerd's socket {socket} may not be used by this user; run as root",
            socket=socket,
        )
