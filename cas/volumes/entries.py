"""What a directory of volumes holds: names and kinds of files."""

__all__ = ["list_entries"]

import os
from contextlib import suppress
from pathlib import Path

from cas.fsops.translation import translated


def list_entries(directory: Path) -> list[tuple[str, int]]:
    """Give names and modes, sorted; an entry that vanishes meanwhile is left out.

    An absent directory is empty.

    Raises:
        StorageError: It cannot be read.
    """
    found = []
    with translated("list", directory):
        try:
            entries = os.scandir(directory)
        except FileNotFoundError:
            return []
        with entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found.append((entry.name, entry.stat(follow_symlinks=False).st_mode))
    return sorted(found)
