"""An opened store: its use cases, made when they are first asked for."""

__all__ = ["Case"]

import platform
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cas.app.connection import backing_on, connect, iter_other_content
from cas.app.opening import qemu_img
from cas.app.process import utc_now
from cas.containerd.client import Containerd
from cas.model.cancellation import Cancellation, check_operation
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.settings import Settings
from cas.store.backing import Clock, ignore_size
from cas.store.guard import VaultGuard
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.store.ports import BlobCatalogue
from cas.store.prune.reserve import keep_reserve
from cas.store.sentinel import Sentinel
from cas.volumes.records import iter_records

if TYPE_CHECKING:
    from cas.model.volume_record import VolumeRecord
    from cas.pull.pull import Pull
    from cas.store.account.usage import Usage
    from cas.store.account.why import Why
    from cas.store.check.check import Check
    from cas.store.check.repair import Repair
    from cas.store.check.report import CheckReport
    from cas.store.content.blobs import Blobs
    from cas.store.image.images import Images
    from cas.store.layers.unpack import Unpack
    from cas.store.prune.prune import Prune
    from cas.volumes.kinds import VolumeKinds
    from cas.volumes.snapshots import VolumeSnapshots
    from cas.volumes.volumes import Volumes


class Case:
    """The store of one persist directory, opened.

    A context manager; closing it twice is harmless. It may be shared between threads, and any
    number of processes may have the same store open: locks and leases work between them.

    Attributes:
        settings: What it was opened with.
        containerd: The connection, for what the use cases do not cover.
        events: What happens in the store, whoever does it.

    Example:
        >>> with Case.open(Settings(persist=Path("/persist"))) as case:
        ...     [record] = case.images.import_archive(Path("alpine.tar"))
        ...     status = case.volumes.prepare(name, record.name, activate=True)
    """

    def __init__(
        self,
        settings: Settings,
        containerd: Containerd,
        clock: Clock,
        on_ingested: Callable[[int], None] = ignore_size,
    ) -> None:
        """Wire the use cases; use :meth:`open`."""
        self.settings = settings
        self.containerd = containerd
        self._clock = clock
        self.guard = VaultGuard.of(settings)
        self.backing = backing_on(
            containerd,
            settings,
            self.guard,
            clock=clock,
            volumes=self._volume_records,
            on_ingested=on_ingested,
        )
        self.events = containerd.events
        self.locks = Locks(settings.layout)
        self.leasing = Leasing(self.backing)
        self.sentinel = Sentinel(self.backing)

    @cached_property
    def blobs(self) -> "Blobs":
        """Use cases on blobs."""
        from cas.store.content.blobs import Blobs

        return Blobs(self.backing, workers=self.settings.workers)

    @cached_property
    def images(self) -> "Images":
        """Use cases on images."""
        from cas.store.image.images import Images

        return Images(self.backing, workers=self.settings.workers)

    @cached_property
    def pull(self) -> "Pull":
        """Brings images and files in from where they are published."""
        from cas.pull.pull import Pull

        return Pull(self.backing, self.settings, self.images)

    @cached_property
    def unpack(self) -> "Unpack":
        """Turns layers into snapshots."""
        from cas.store.layers.unpack import Unpack

        return Unpack(self.backing, self.locks, workers=self.settings.workers)

    @cached_property
    def volumes(self) -> "Volumes":
        """Use cases on volumes."""
        from cas.store.image.catalogue import ImageCatalogue
        from cas.volumes.volumes import Volumes

        # Not self.images: a command that makes a volume needs no archives.
        images = ImageCatalogue(self.backing)
        return Volumes(
            self.backing,
            self.locks,
            self.leasing,
            images,
            self.unpack,
            kinds=self._volume_kinds,
        )

    @cached_property
    def _volume_kinds(self) -> "VolumeKinds":
        """The kinds of volumes."""
        from cas.volumes.kinds import VolumeKinds

        return VolumeKinds(self.backing, self.locks, self.leasing, qemu_img(self.settings))

    @cached_property
    def volume_snapshots(self) -> "VolumeSnapshots":
        """Use cases on snapshots of volumes."""
        from cas.volumes.snapshots import VolumeSnapshots

        return VolumeSnapshots(self.backing, self.locks, self._volume_kinds)

    @cached_property
    def prune(self) -> "Prune":
        """Plans and does removals."""
        from cas.store.prune.prune import Prune

        return Prune(self.backing, others=self._other_content)

    @cached_property
    def usage(self) -> "Usage":
        """Accounts for the disk."""
        from cas.store.account.usage import Usage
        from cas.volumes.disk.shares import iter_disk_shares

        layout = self.settings.layout
        return Usage(
            self.backing,
            others=self._other_content,
            disks=lambda: iter_disk_shares(layout, self.volumes.iter_disks()),
        )

    @cached_property
    def why(self) -> "Why":
        """Explains what keeps an object."""
        from cas.store.account.why import Why

        return Why(self.backing)

    @cached_property
    def check(self) -> "Check":
        """Verifies the invariants."""
        from cas.model.platforms import host_platform
        from cas.store.check.check import Check
        from cas.volumes.disk.snapshot_check import iter_snapshot_problems
        from cas.volumes.scan import iter_suffixed

        return Check(
            self.backing,
            platform=host_platform(platform.machine()),
            judge=self.volumes.iter_volumes,
            suffixed=lambda: iter_suffixed(self.settings.layout),
            disk_snapshots=lambda: iter_snapshot_problems(self.backing, self.locks),
            others=self._other_content,
        )

    @cached_property
    def repair(self) -> "Repair":
        """Puts right what the check found."""
        from cas.store.check.repair import Repair

        return Repair(self.backing, images=self.images, unpack=self.unpack, recover=self.recover)

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        writing: bool = True,
        clock: Clock = utc_now,
        on_ingested: Callable[[int], None] = ignore_size,
    ) -> Self:
        """Connect to the store's containerd.

        Args:
            settings: Where and how; None means all defaults.
            writing: Also make sure that the vault is open, that the layout is as it must be, that
                the store carries its sentinel, and that room is kept back for removals. Give False
                to only look.
            clock: Gives the current time, aware.
            on_ingested: Told the size of each blob that is put into the store, by any thread.

        Raises:
            DeniedError: The process is not root.
            DaemonUnavailableError: containerd does not answer within ``settings.wait_seconds``.
            DaemonVersionError: It is too old or lacks a service.
            SocketPathError: The socket's path is too long for the kernel.
            VaultLockedError: The vault is locked.
            VaultNotEncryptedError: The vault is plain and encryption is required (only when
                writing).
            LayoutError: A directory is not as the layout wants it (only when writing).
            StoreMetadataLostError: containerd's database was emptied under the store (only when
                deleting).
        """
        settings = settings or Settings()
        containerd = connect(settings, writing=writing)
        try:
            case = cls(settings, containerd, clock, on_ingested)
            if writing:
                case.sentinel.ensure()
                keep_reserve(settings.layout)
        except BaseException:
            containerd.close()
            raise
        return case

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; nothing in the store changes."""
        self.containerd.close()

    def _volume_records(self) -> "Iterator[VolumeRecord]":
        yield from iter_records(self.settings.layout)
        self.guard.check_open()  # while the vault is locked, nothing in it can be found

    def _other_content(self) -> Iterator[tuple[str, BlobCatalogue]]:
        return iter_other_content(self.containerd, self.settings.namespace)

    def now(self) -> datetime:
        """The time as the store sees it, aware UTC."""
        return self._clock()

    def recover(self) -> None:
        """Finish or undo what killed operations left; work that is under way is left alone.

        Idempotent. Leases of dead processes go, leftovers of volumes are finished or undone, and
        partial files of ingests and downloads that nobody resumed are removed. What a caller sent
        a day ago for an image that it never loaded is unpinned.

        Raises:
            UnavailableError: containerd does not answer.
            StorageError: A leftover cannot be removed.
            InterruptedOperationError: The operation that this belongs to was stopped; the rest is
                left to the next recovery.
        """
        from cas.app.recovery import recover_store

        recover_store(self.backing, self.leasing, self.volumes)

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

        See :func:`cas.store.check.report.check_store`.
        """
        from cas.store.check.report import check_store

        if fix:
            self.guard.check_writable()
        else:
            self.guard.check_open()
        return check_store(
            self.check,
            self.repair,
            read_data=read_data,
            max_duration=max_duration,
            fix=fix,
            cancel=cancel,
            progress=progress,
        )

    def collect_garbage(self) -> None:
        """Let containerd remove, now, what nothing refers to; returns when it has.

        Works on a full disk.

        Raises:
            StoreMetadataLostError: containerd's database was emptied; nothing is deleted then.
            UnavailableError: containerd does not answer.
        """
        from cas.store.prune.reserve import room_to_remove

        self.guard.check_writable()
        self.sentinel.require()
        check_operation()
        with room_to_remove(self.settings.layout):
            self.backing.leases.collect_garbage()
