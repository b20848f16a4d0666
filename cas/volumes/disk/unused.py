"""Disks that nobody has open, at one moment or for as long as it takes to change their names."""

__all__ = [
    "is_due_to_use",
    "is_due_to_writing",
    "is_only_read",
    "require_unlocked",
    "require_unused",
    "require_unwritten",
    "unused",
]

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cas.errors import CasError, InUseError
from cas.fsops.mounts import holders
from cas.fsops.record_locks import has_record_lock
from cas.fsops.sole_use import SoleUse, is_open_to_write
from cas.model.layout import DiskPaths

_SHOWN_HOLDERS = 5
_READ = "read"


def require_unused(paths: DiskPaths) -> None:
    """Return if nobody has the disk open; raises as :func:`unused`."""
    with unused(paths):
        return


def require_unwritten(paths: DiskPaths) -> None:
    """Return if nobody has the disk open to write it; raises as :func:`unused`."""
    try:
        require_unused(paths)
    except InUseError as error:
        if not is_only_read(error):
            raise


def is_only_read(error: CasError) -> bool:
    """Whether it says that a disk is open, to nobody who may write to it."""
    return isinstance(error, InUseError) and error.details.get("access") == _READ


def is_due_to_use(error: CasError, paths: DiskPaths) -> bool:
    """Whether something failed because somebody has the disk open, or may have."""
    return isinstance(error, InUseError) or _fails_by_use(require_unused, paths)


def is_due_to_writing(error: CasError, paths: DiskPaths) -> bool:
    """Whether something failed because somebody has the disk open to write it, or may have."""
    if isinstance(error, InUseError):
        return not is_only_read(error)
    return _fails_by_use(require_unwritten, paths)


def _fails_by_use(require: Callable[[DiskPaths], None], paths: DiskPaths) -> bool:
    try:
        require(paths)
    except InUseError:
        return True
    except CasError:
        return False  # there is no disk, or no looking at it
    return False


def require_unlocked(paths: DiskPaths) -> None:
    """Return if no virtual machine holds the disk's lock; also for who has it open themselves.

    Raises:
        InUseError: One does.
    """
    if has_record_lock(paths.file):
        raise _in_use(paths, [])


@contextmanager
def unused(paths: DiskPaths) -> Iterator[Callable[[], None]]:
    """Have a disk that nobody else has open; who opens it in the block waits for its end.

    Where the file system has no leases it is only looked, before the block, who has it open.

    Yields:
        Raises InUseError if somebody waits to write it. Who does is about to get the file that had
        the name when they asked, so that it must have its name when the block ends.

    Raises:
        InUseError: A running virtual machine holds its lock, or somebody has it open.
    """
    use = _sole_use(paths)
    if use is None:
        _require_no_holder(paths)
        yield lambda: None
        return

    def require_nobody_waits() -> None:
        if use.is_awaited():
            raise _in_use(paths, [])

    with use:
        yield require_nobody_waits


def _sole_use(paths: DiskPaths) -> SoleUse | None:
    try:
        return SoleUse.take(paths.file)
    except InUseError as error:
        written, users = is_open_to_write(paths.file), holders(paths.file)
        if written or users:
            raise _in_use(paths, users, written=written) from error
    try:
        return SoleUse.take(paths.file)  # a look that took long, and is over?
    except InUseError as error:
        raise _in_use(paths, [], written=is_open_to_write(paths.file)) from error


def _require_no_holder(paths: DiskPaths) -> None:
    users = holders(paths.file)
    if users or has_record_lock(paths.file):
        raise _in_use(paths, users)


def _in_use(paths: DiskPaths, users: list[tuple[int, str]], *, written: bool = True) -> InUseError:
    shown = ", ".join(f"{pid} ({name})" for pid, name in users[:_SHOWN_HOLDERS])
    return InUseError(
        f"disk volume {paths.name} is open in process {shown or 'unknown'}; stop it first",
        name=paths.name,
        path=paths.file,
        holders=shown,
        access="write" if written else _READ,
    )
