"""Volumes that must not be made anew, because their old data could not be converted yet.

A small file per volume says why. Without it an empty volume would take the name, and the old data
would never be found again.
"""

__all__ = ["ALL_VOLUMES", "check_not_held", "hold", "iter_held", "release"]

from collections.abc import Iterator
from pathlib import Path

from cas.errors import VolumeHeldError
from cas.fsops.durable import make_directory, remove_file, write_file
from cas.fsops.reading import regular_file
from cas.fsops.translation import translated
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName

ALL_VOLUMES = "all"
"""Holds every volume: it could not be told which ones the old data is of."""
_MAX_REASON_BYTES = 16 * 1024


def check_not_held(layout: Layout, name: VolumeName) -> None:
    """Return if a volume may be made.

    Raises:
        VolumeHeldError: It is held; says why, and what to do.
    """
    for key in (str(name), ALL_VOLUMES):
        reason = _read(layout.held_volumes / key)
        if reason is not None:
            raise VolumeHeldError(
                f"volume {name} is not made, because its data may still lie where older software "
                f"kept it: {reason}; run `cas upgrade run` when that is put right, or give the old "
                f"data up with `cas upgrade release '{key}'`",
                name=name,
                held=key,
            )


def hold(layout: Layout, key: str, reason: str) -> None:
    """Hold a volume, durably. Idempotent.

    Args:
        layout: Where.
        key: Name of the volume, or ``ALL_VOLUMES``.
        reason: What is told to whoever wants to make it.

    Raises:
        NoSpaceError: No room.
        StorageError: Any other failed system call.
    """
    for directory in (layout.upgrade, layout.held_volumes):
        make_directory(directory, mode=0o700)
    encoded = reason.encode("utf-8", "backslashreplace")[:_MAX_REASON_BYTES]
    if _read(layout.held_volumes / key) != encoded.decode(errors="replace"):
        write_file(layout.held_volumes / key, encoded)


def release(layout: Layout, key: str) -> bool:
    """Let a volume be made again, durably. Idempotent.

    Returns:
        Whether it was held.

    Raises:
        StorageError: A system call failed.
    """
    return layout.held_volumes.is_dir() and remove_file(layout.held_volumes / key)


def iter_held(layout: Layout) -> Iterator[tuple[str, str]]:
    """Give the held volumes with the reasons, by name."""
    with translated("list", layout.held_volumes):
        if not layout.held_volumes.is_dir():
            return
        names = sorted(path.name for path in layout.held_volumes.iterdir())
    for name in names:
        reason = _read(layout.held_volumes / name)
        if reason is not None and not name.startswith("."):
            yield name, reason


def _read(path: Path) -> str | None:
    with translated("read", path):
        try:
            with regular_file(path) as file:
                return file.read(_MAX_REASON_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return None
