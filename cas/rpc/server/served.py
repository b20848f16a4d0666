"""What a server serves, and what every servicer is given; :class:`cas.app.Case` fits."""

__all__ = ["Gates", "ListenedEvents", "ServedStore", "Workshop"]

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from cas.containerd.client import Containerd
from cas.model.cancellation import Cancellation
from cas.model.events import Event
from cas.model.progress import Progress
from cas.model.settings import Settings
from cas.pull.pull import Pull
from cas.rpc.server.gate import Gate
from cas.rpc.server.paths import AllowedPaths
from cas.store.account.usage import Usage
from cas.store.account.why import Why
from cas.store.check.report import CheckReport
from cas.store.content.blobs import Blobs
from cas.store.guard import VaultGuard
from cas.store.image.images import Images
from cas.store.prune.prune import Prune
from cas.store.workers import WorkerPool
from cas.volumes.snapshots import VolumeSnapshots
from cas.volumes.volumes import Volumes


class ListenedEvents(Protocol):
    """What happens in a store."""

    def subscribe(self, cancel: Cancellation, /) -> AbstractContextManager[Iterator[Event]]:
        """Listen, as long as the context lasts."""


class ServedStore(Protocol):
    """An opened store; see :class:`cas.app.Case` for what the parts do."""

    @property
    def settings(self) -> Settings:
        """What it was opened with."""

    @property
    def containerd(self) -> Containerd:
        """The connection."""

    @property
    def events(self) -> ListenedEvents:
        """What happens in it."""

    @property
    def guard(self) -> VaultGuard:
        """Says whether it may be written."""

    @property
    def blobs(self) -> Blobs:
        """Use cases on blobs."""

    @property
    def images(self) -> Images:
        """Use cases on images."""

    @property
    def pull(self) -> Pull:
        """Brings images in from where they are published."""

    @property
    def volumes(self) -> Volumes:
        """Use cases on volumes."""

    @property
    def volume_snapshots(self) -> VolumeSnapshots:
        """Use cases on snapshots of volumes."""

    @property
    def prune(self) -> Prune:
        """Plans and does removals."""

    @property
    def usage(self) -> Usage:
        """Accounts for the disk."""

    @property
    def why(self) -> Why:
        """Explains what keeps an object."""

    def check_store(
        self,
        *,
        read_data: bool = False,
        max_duration: timedelta | None = None,
        fix: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = ...,
    ) -> CheckReport:
        """Verify the invariants, and repair when asked to."""

    def recover(self) -> None:
        """Finish or undo what killed operations left."""

    def collect_garbage(self) -> None:
        """Let containerd remove what nothing refers to."""

    def now(self) -> datetime:
        """The time as the store sees it."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What bounds the calls at work, and with them memory; one kind does not hold up another.

    Args:
        bulk: Calls that move content at the service's own pace; no caller can hold a place.
        transfers: Blobs that come and go at their caller's pace.
        archives: Archives that do.
        pulls: Pulls, which go at a network's pace.
        account: Calls that hold a picture of the whole store in memory.
    """

    bulk: Gate
    transfers: Gate
    archives: Gate
    pulls: Gate
    account: Gate

    @property
    def all(self) -> Sequence[Gate]:
        """All of them."""
        return (self.bulk, self.transfers, self.archives, self.pulls, self.account)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What the servicers of one server share.

    Args:
        store: What they serve.
        workers: Threads for work that reports while it goes on.
        gates: What its calls have to pass.
        paths: What a path in a request may be.
    """

    store: ServedStore
    workers: WorkerPool
    gates: Gates
    paths: AllowedPaths
