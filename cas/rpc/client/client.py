"""The Python client of the service ``cas.v1``: the library's calls, made by somebody else.

Methods, arguments, values and errors are those of :class:`cas.app.Case`, so that code which takes
either need not know which. What nobody asks for is not imported.
"""

__all__ = ["Client"]

import os
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cas._gen.cas.v1 import store_pb2, store_pb2_grpc
from cas.errors import ServiceMismatchError
from cas.model.cancellation import Cancellation
from cas.model.limits import Limits
from cas.model.progress import NO_PROGRESS, Progress
from cas.rpc.client.calls import Calls
from cas.rpc.client.channel import open_channel
from cas.rpc.client.facts import ServiceFacts, service_facts
from cas.rpc.client.opening import Wait, ask_again
from cas.rpc.client.running import run_apart

if TYPE_CHECKING:
    from cas.rpc.client.account import UsageClient, WhyClient
    from cas.rpc.client.blobs import BlobsClient
    from cas.rpc.client.events import EventsClient
    from cas.rpc.client.images import ImagesClient
    from cas.rpc.client.prune import PruneClient
    from cas.rpc.client.vault import VaultClient
    from cas.rpc.client.volume_snapshots import VolumeSnapshotsClient
    from cas.rpc.client.volumes import VolumesClient
    from cas.store.check.report import CheckReport

_ANSWER_SECONDS = 30.0
"""Deadline of the first call."""
_OPENING_SECONDS = 30.0
"""A service that has to recover a lot takes some seconds; one that takes longer is told."""


class Client:
    """A connection to the service; get one from :meth:`connect`.

    A context manager; closing it twice is harmless. It may be shared between threads. A connection
    that breaks comes back by itself: calls meanwhile raise ``ServiceUnavailableError``, and may be
    repeated, since every call may. A service that was started again and still opens its store is
    waited for by every call, as by :meth:`connect`. A call that its caller breaks off (an exception
    such as ``KeyboardInterrupt``, a ``Cancellation``, an iterator that is closed early) is undone
    by the service before control comes back, if that takes less than a minute.

    Attributes:
        facts: What the service said of itself.

    Example:
        >>> with Client.connect(Path("/run/cas/cas.sock")) as client:
        ...     [record] = client.images.import_archive(Path("alpine.tar"))
        ...     status = client.volumes.prepare(name, record.name, activate=True)
    """

    def __init__(self, calls: Calls, facts: ServiceFacts, limits: Limits) -> None:
        """Wrap a connection; use :meth:`connect`."""
        self.facts = facts
        self._calls = calls
        self._limits = limits
        self._stub = store_pb2_grpc.StoreStub(calls.channel)

    @classmethod
    def connect(
        cls,
        socket: Path,
        *,
        seconds: float = _ANSWER_SECONDS,
        opening_seconds: float = _OPENING_SECONDS,
        listening_seconds: float = 0.0,
        on_wait: Callable[[], object] = lambda: None,
        limits: Limits | None = None,
    ) -> Self:
        """Connect and ask the service who it is; one that was just started is waited for.

        Args:
            socket: The service's unix socket.
            seconds: How long to wait for an answer.
            opening_seconds: How long to wait for a service that answers that it opens its store,
                now and with every call after it was started again.
            listening_seconds: How long to wait before for somebody to listen on the socket; a
                program that is started beside the service gives some.
            on_wait: Called once when one of both takes more than a moment.
            limits: What documents of images may be; None for the defaults.

        Raises:
            ServiceUnavailableError: Nobody answers on the socket.
            ServiceOpeningError: The service still opens its store.
            DeadlineExceededError: Somebody accepts calls and does not answer them.
            DeniedError: The socket may not be used by this user.
            SocketPathError: The path is too long for a socket.
            VaultLockedError: The service still waits for its vault, which
                :class:`cas.rpc.client.vault.VaultClient` reaches.
        """
        channel = open_channel(socket, listening=Wait(listening_seconds, on_wait))
        try:
            wait = Wait(opening_seconds, on_wait)
            calls = Calls(channel, wait=wait)
            ask = partial(_ask, Calls(channel, seconds), f"talk to the service on {socket}")
            facts = ask_again(ask, wait=wait)
        except BaseException:
            run_apart(channel.close)
            raise
        return cls(calls, facts, limits or Limits())

    def require_store(self, *, persist: Path, namespace: str, address: Path | None = None) -> None:
        """Make sure that the service works on one store and no other.

        Args:
            persist: The persist directory; symbolic links are followed.
            namespace: containerd's namespace.
            address: containerd's socket; None for any.

        Raises:
            ServiceMismatchError: It serves another one.
        """
        facts = self.facts
        same = (
            _real(facts.persist) == _real(persist)
            and facts.namespace == namespace
            and (address is None or _real(facts.address) == _real(address))
        )
        if not same:
            raise ServiceMismatchError(
                f"the service works on {facts.persist}, namespace {facts.namespace!r}, containerd "
                f"{facts.address}, and not on {persist}, namespace {namespace!r}; ask another "
                "service, or none",
                persist=facts.persist,
                namespace=facts.namespace,
                address=facts.address,
            )

    def with_deadline(self, seconds: float | None) -> "Client":
        """Give the same connection with a deadline for every call; closing either closes both.

        A call that does not end in time raises ``DeadlineExceededError``; the service notices, and
        undoes what it has begun.
        """
        return Client(self._calls.with_deadline(seconds), self.facts, self._limits)

    @cached_property
    def blobs(self) -> "BlobsClient":
        """Use cases on blobs."""
        from cas.rpc.client.blobs import BlobsClient

        return BlobsClient(self._calls, self.facts)

    @cached_property
    def images(self) -> "ImagesClient":
        """Use cases on images."""
        from cas.rpc.client.images import ImagesClient

        return ImagesClient(self._calls, self.facts, self._limits)

    @cached_property
    def volumes(self) -> "VolumesClient":
        """Use cases on volumes: containers and disks."""
        from cas.rpc.client.volumes import VolumesClient

        return VolumesClient(self._calls)

    @cached_property
    def volume_snapshots(self) -> "VolumeSnapshotsClient":
        """Use cases on snapshots of volumes: containers and disks."""
        from cas.rpc.client.volume_snapshots import VolumeSnapshotsClient

        return VolumeSnapshotsClient(self._calls)

    @cached_property
    def vaults(self) -> "VaultClient":
        """Use cases on the encrypted directories that need no passphrase."""
        from cas.rpc.client.vault import VaultClient

        return VaultClient(self._calls)

    @cached_property
    def prune(self) -> "PruneClient":
        """Plans and does removals."""
        from cas.rpc.client.prune import PruneClient

        return PruneClient(self._calls)

    @cached_property
    def usage(self) -> "UsageClient":
        """Accounts for the disk."""
        from cas.rpc.client.account import UsageClient

        return UsageClient(self._calls)

    @cached_property
    def events(self) -> "EventsClient":
        """What happens in the store, whoever does it."""
        from cas.rpc.client.events import EventsClient

        return EventsClient(self._calls)

    @cached_property
    def why(self) -> "WhyClient":
        """Explains what keeps an object."""
        from cas.rpc.client.account import WhyClient

        return WhyClient(self._calls)

    def check_store(
        self,
        *,
        read_data: bool = False,
        max_duration: timedelta | None = None,
        fix: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> "CheckReport":
        """Verify the invariants, and with ``fix`` repair until nothing repairable is left.

        See :func:`cas.store.check.report.check_store` for the arguments and the errors.
        """
        from cas.rpc.client.account import check_store

        return check_store(
            self._calls,
            read_data=read_data,
            max_duration=max_duration,
            fix=fix,
            cancel=cancel,
            progress=progress,
        )

    def recover(self) -> None:
        """Finish or undo what killed operations left; work that is under way is left alone.

        Idempotent.

        Raises:
            UnavailableError: The service or its containerd does not answer.
            StorageError: A leftover cannot be removed.
        """
        self._calls.unary(self._stub.Recover, store_pb2.RecoverRequest(), action="recover")

    def collect_garbage(self) -> None:
        """Let containerd remove, now, what nothing refers to; returns when it has.

        Works on a full disk.

        Raises:
            StoreMetadataLostError: containerd's database was emptied; nothing is deleted then.
            UnavailableError: The service or its containerd does not answer.
        """
        request = store_pb2.CollectGarbageRequest()
        self._calls.unary(self._stub.CollectGarbage, request, action="collect garbage")

    def close(self) -> None:
        """Close the connection; running calls end, and are undone by the service. Idempotent."""
        run_apart(self._calls.channel.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _ask(calls: Calls, action: str) -> ServiceFacts:
    stub = store_pb2_grpc.StoreStub(calls.channel)
    return service_facts(calls.unary(stub.Version, store_pb2.VersionRequest(), action=action))


def _real(path: Path) -> str:
    return os.path.realpath(path)
