"""Copies a thing beside its target, and proves that what is on the device is the same."""

__all__ = ["proven_copy", "require_room"]

from pathlib import Path

from cas.errors import CopyMismatchError, NoSpaceError
from cas.fsops.replica import Replica, content_digest, replicate
from cas.fsops.trees import free_bytes
from cas.upgrade.items import Planned
from cas.upgrade.telling import Telling


def require_room(planned: Planned, directory: Path, min_free_bytes: int) -> None:
    """Return if a copy fits into a directory's file system.

    Args:
        planned: What is to be copied.
        directory: Where to.
        min_free_bytes: Room that it leaves.

    Raises:
        NoSpaceError: It does not.
        StorageError: That cannot be told.
    """
    free = free_bytes(directory) - min_free_bytes
    if free < planned.needed:
        raise NoSpaceError(
            f"the copy of {str(planned.found.path)!r} needs {planned.needed} bytes, "
            f"{planned.needed - free} more than {str(directory)!r} can give; make room and run "
            "the upgrade again",
            path=planned.found.path,
            needed=planned.needed,
            missing=planned.needed - free,
        )


def proven_copy(planned: Planned, temporary: Path, telling: Telling) -> Replica:
    """Copy, sync, read back and compare; after failure the temporary name may have a part of it.

    Args:
        planned: What is to be copied.
        temporary: Where to; nothing is there.
        telling: Told of it.

    Raises:
        CopyMismatchError: It reads back as something else.
        SourceChangedError: Somebody writes to the original.
        NoSpaceError: No room.
        InterruptedOperationError: The work was stopped.
        StorageError: Any other failed system call.
    """
    source = planned.found.path
    replica = telling.told(
        "copy", planned, lambda advance: replicate(source, temporary, advance=advance)
    )
    after = telling.told(
        "compare", planned, lambda advance: content_digest(temporary, advance=advance)
    )
    if after != replica.digest:
        raise CopyMismatchError(
            f"the copy of {str(source)!r} reads back as {after}, expected {replica.digest}; it "
            "was removed and the original is untouched; see the kernel log for errors of the "
            "device",
            path=source,
            expected=replica.digest,
            actual=after,
        )
    return replica
