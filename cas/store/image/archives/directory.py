"""An image archive that lies unpacked in a directory."""

__all__ = ["DirectoryArchive"]

import errno
import os
import stat
from pathlib import Path
from typing import Self

from cas.errors import MalformedArchiveError, SourceNotFoundError
from cas.fsops.beneath import inspect
from cas.fsops.translation import translated
from cas.store.content.sources import FileSource
from cas.store.image.archives.archive import ArchiveFile, SourceFile, claimed_digest

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class DirectoryArchive:
    """Reads files below one directory.

    A blob named by its digest may be a symbolic link to anywhere, as build tools make them: what
    it leads to must have the digest. Every other file must lie inside.

    Args:
        path: The directory.
        beneath: A directory that it must lie below; no symbolic link is followed then at all.
    """

    def __init__(self, path: Path, *, beneath: Path | None = None) -> None:
        self.origin = repr(str(path))
        self._beneath = beneath
        with translated("open", path, source=True):
            self._root = path.resolve(strict=True) if beneath is None else path

    def find(self, name: str) -> ArchiveFile | None:
        """Give the file; see :class:`cas.store.image.archives.archive.Archive`."""
        path = self._locate(name) if self._beneath is None else self._root / name
        if path is None:
            return None
        try:
            status = inspect(path, self._beneath)
        except SourceNotFoundError:
            return None
        # Nothing but a regular file may be opened: a pipe would wait for ever.
        if not stat.S_ISREG(status.st_mode):
            return None
        return SourceFile(status.st_size, FileSource(path, beneath=self._beneath))

    def _locate(self, name: str) -> Path | None:
        try:
            path = Path(os.path.realpath(self._root / name, strict=True))
        except ValueError:  # a null byte or a lone surrogate: no file has such a name
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            if error.errno == errno.ELOOP:
                raise MalformedArchiveError(
                    f"links of {self.origin} lead in a circle at {name[:200]!r}", name=name[:200]
                ) from error
            with translated("find", self._root / name):
                raise
        if claimed_digest(name) is None and not path.is_relative_to(self._root):
            raise MalformedArchiveError(
                f"{name!r} of {self.origin} leads out of the directory, to {str(path)!r}",
                name=name,
            )
        return path

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
