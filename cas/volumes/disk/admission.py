"""Whether one more disk may be, or a snapshot of one, after which it is written anew.

What it and all others may still come to take has to be there.
"""

__all__ = ["DiskAdmission"]

from collections.abc import Iterator
from contextlib import contextmanager

from cas.errors import LimitExceededError, NoSpaceError
from cas.model.disk.record import DiskRequest
from cas.model.layout import DiskPaths
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.store.space import Space
from cas.volumes.disk.looking import look_at_disk, pending_growth
from cas.volumes.status import DiskStatus


class DiskAdmission:
    """Admits disks to one store.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._locks = Locks(backing.layout)
        self._space = Space(backing)

    def require(self, paths: DiskPaths, request: DiskRequest, size: int, *, allocated: int) -> None:
        """Return if a disk is within the limit and fits, full as it and all others may become.

        Args:
            paths: Of the disk.
            request: What it is to be.
            size: Bytes of the disk.
            allocated: What its file takes already.

        Raises:
            LimitExceededError: No disk may be so large.
            NoSpaceError: It does not fit, and thin disks are not allowed.
        """
        limit = self._backing.limits.disk_bytes
        if size > limit:
            raise LimitExceededError(
                f"volume {paths.name} would be a disk of {size} bytes, more than the {limit} that "
                "a disk may have",
                limit=limit,
                actual=size,
            )
        if self._is_promised(request):
            self._require_room(paths, max(0, size - allocated))

    @contextmanager
    def admitted(
        self, paths: DiskPaths, request: DiskRequest, size: int, *, allocated: int
    ) -> Iterator[None]:
        """Let a disk get its name, one after the other, so that each counts for the next.

        Raises as :meth:`require`, if others took the room while this one was made.
        """
        if not self._is_promised(request):
            yield
            return
        with self._locks.disks():
            self.require(paths, request, size, allocated=allocated)
            yield

    @contextmanager
    def changeable(self, paths: DiskPaths) -> Iterator[None]:
        """Let a snapshot be taken of all of a disk, one after the other as in :meth:`admitted`.

        Raises:
            NoSpaceError: The disk cannot be written to its end then, and thin disks are not
                allowed; the other disks count as well.
        """
        if self._backing.limits.thin_disks:
            yield
            return
        with self._locks.disks():
            self._require_room_to_change(look_at_disk(paths, self._backing.limits))
            yield

    def _is_promised(self, request: DiskRequest) -> bool:
        return not self._backing.limits.thin_disks and not request.read_only

    def _require_room(self, paths: DiskPaths, size: int) -> None:
        directory = paths.directory
        others = pending_growth(self._backing.layout, self._backing.limits, directory)
        missing = size + others - self._space.available(at=directory)
        if missing > 0:
            raise NoSpaceError(
                f"volume {paths.name} may come to take {size} bytes, and the other disks {others} "
                f"more than they do: {missing} more than {str(directory)!r} can give; make room, "
                "ask for less, or allow thin_disks under [limits]",
                path=directory,
                needed=size,
                missing=missing,
            )

    def _require_room_to_change(self, disk: DiskStatus) -> None:
        limits, directory = self._backing.limits, disk.path.parent
        others = pending_growth(self._backing.layout, limits, directory, besides=[disk.path])
        missing = others + disk.virtual_size - self._space.available(at=directory)
        if missing > 0:
            raise NoSpaceError(
                f"disk volume {disk.path.name} may come to take {disk.virtual_size} bytes beside a "
                f"snapshot of it, and the other disks {others} more than they do: {missing} more "
                f"than {str(directory)!r} can give; make room, or allow thin_disks under [limits]",
                path=directory,
                needed=disk.virtual_size,
                missing=missing,
            )
