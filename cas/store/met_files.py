"""Which files the last recovery met and left, so that the next one knows them again.

Work that was killed can be gone on with for one recovery: the first that meets a file leaves it,
the second that meets it unchanged removes it. Removes nothing itself, and trusts no record that
does not add up.
"""

__all__ = ["MetFiles", "met_files"]

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cas.fsops.durable import remove_file, write_file
from cas.fsops.reading import regular_file
from cas.fsops.translation import translated


class MetFiles:
    """The record of one kind of files; made by :func:`met_files`."""

    def __init__(self, before: dict[str, int]) -> None:
        self._before = before
        self.left: dict[str, int] = {}
        """Files that stay, each with its time of change in nanoseconds since 1970."""

    def is_unchanged(self, path: Path, changed: int) -> bool:
        """Whether the last recovery met the file as it is."""
        return self._before.get(str(path)) == changed

    def leave(self, path: Path, changed: int) -> None:
        """Remember a file for the next recovery."""
        self.left[str(path)] = changed


@contextmanager
def met_files(record: Path) -> Iterator[MetFiles]:
    """Give what the last recovery met; what this one leaves is written down at the end, durably.

    After an error the record is as it was, and so nothing is removed sooner than it may.

    Args:
        record: The file; absent while nothing is left.

    Raises:
        StorageError: It cannot be read or written.
    """
    before = _read(record)
    met = MetFiles(before)
    yield met
    if met.left != before:
        _write(record, met.left)


def _read(path: Path) -> dict[str, int]:
    with translated("read", path):
        try:
            with regular_file(path) as file:
                document = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return {}
    return document if isinstance(document, dict) else {}


def _write(path: Path, left: dict[str, int]) -> None:
    if left:
        write_file(path, json.dumps(left).encode())
    else:
        remove_file(path)
