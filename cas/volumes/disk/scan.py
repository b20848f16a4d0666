"""Which disk volumes there are, told by name and kind of file; changes nothing.

A regular file with a volume's name is a complete disk volume, wherever its directory.
"""

__all__ = ["find_disk", "is_disk", "iter_disks", "iter_records_on_disk"]

import stat
from collections.abc import Iterator
from contextlib import suppress

from cas.errors import InvalidNameError
from cas.fsops.translation import translated
from cas.model.layout import DiskPaths, Layout
from cas.model.volume_name import VolumeName
from cas.volumes.entries import list_entries

_PLACES = (False, True)
"""In the vault, in clear."""
_RECORD_SUFFIX = ".json"
_SNAPSHOTS_SUFFIX = ".snapshots"


def find_disk(layout: Layout, name: VolumeName) -> DiskPaths | None:
    """Give the files of a disk volume that exists; None if it does not."""
    for clear in _PLACES:
        paths = layout.disk(name, clear=clear)
        if is_disk(paths):
            return paths
    return None


def is_disk(paths: DiskPaths) -> bool:
    """Whether there is a disk volume of this name in this place."""
    with translated("inspect", paths.file):
        try:
            return stat.S_ISREG(paths.file.lstat().st_mode)
        except FileNotFoundError:
            return False


def iter_disks(layout: Layout) -> Iterator[DiskPaths]:
    """Stream the complete disk volumes of both directories, each sorted by name."""
    for clear in _PLACES:
        for entry, mode in list_entries(layout.disk_directory(clear=clear)):
            if stat.S_ISREG(mode):
                with suppress(InvalidNameError):
                    yield layout.disk(VolumeName.parse(entry), clear=clear)


def iter_records_on_disk(layout: Layout) -> Iterator[DiskPaths]:
    """Stream the files of which there is a record or a history, whether or not there is a disk."""
    for clear in _PLACES:
        names = set()
        for entry, _ in list_entries(layout.disk_records(clear=clear)):
            stem = entry.removesuffix(_RECORD_SUFFIX).removesuffix(_SNAPSHOTS_SUFFIX)
            with suppress(InvalidNameError):
                names.add(VolumeName.parse(stem))
        for name in sorted(names):
            yield layout.disk(name, clear=clear)
