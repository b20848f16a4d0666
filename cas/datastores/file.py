"""The datastore that is a directory of this machine: a mounted stick, a share."""

__all__ = ["FileSource"]

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import unquote, urlsplit

from cas.datastores.port import Download, RemoteObject, Validator
from cas.datastores.settings import SourceSettings
from cas.errors import ConfigError, DeniedError, SourceChangedError, SourceNotFoundError
from cas.fsops.translation import translated
from cas.model.limits import CHUNK_BYTES

_KIND = "file"


class FileSource:
    """Files below one directory; symbolic links in it are followed, ``..`` is not."""

    def __init__(self, settings: SourceSettings) -> None:
        parts = urlsplit(settings.url)
        directory = Path(unquote(parts.path))
        if parts.netloc not in ("", "localhost") or not directory.is_absolute():
            message = f"{settings.url!r} is not of the form file:///directory"
            raise ConfigError(message)
        self._directory = directory

    @property
    def name(self) -> str:
        """The directory as a URL."""
        return f"file://{self._directory}"

    def stat(self, path: str, /) -> RemoteObject:
        """Say size and state of a file."""
        with self._opened(path) as descriptor:
            return _described(os.fstat(descriptor))

    @contextmanager
    def open(
        self, path: str, /, *, offset: int = 0, validator: Validator | None = None
    ) -> Iterator[Download]:
        """Read a file from ``offset`` on; see :class:`cas.datastores.port.Source`."""
        with self._opened(path) as descriptor:
            remote = _described(os.fstat(descriptor))
            if offset and remote.validator != validator:
                raise _changed(self._place(path))
            yield Download(remote, self._chunks(path, descriptor, offset, remote))

    def _chunks(
        self, path: str, descriptor: int, offset: int, remote: RemoteObject
    ) -> Iterator[bytes]:
        place = self._place(path)
        with translated("read", place):
            while chunk := os.pread(descriptor, CHUNK_BYTES, offset):
                offset += len(chunk)
                yield chunk
            now = _described(os.fstat(descriptor))
        if now != remote:
            raise _changed(place)

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        place = self._place(path)
        try:
            with translated("open", place, source=True):
                # Without waiting: opening a pipe would.
                descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except DeniedError as error:
            raise _unreadable(place) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                message = f"{str(place)!r} is not a regular file"
                raise SourceNotFoundError(message, path=place)
            yield descriptor
        finally:
            os.close(descriptor)

    def _place(self, path: str) -> Path:
        if ".." in PurePosixPath(path).parts:
            message = f"path {path!r} leads out of its datastore; name the file without '..'"
            raise ConfigError(message, path=path)
        return self._directory / path.lstrip("/") if path else self._directory

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _described(status: os.stat_result) -> RemoteObject:
    state = f"{status.st_ino}:{status.st_mtime_ns}:{status.st_size}"
    return RemoteObject(status.st_size, Validator(_KIND, state))


def _unreadable(place: Path) -> DeniedError:
    return DeniedError(
        f"user {os.geteuid()} may not read {str(place)!r}; let that user, which is the "
        "downloader's, read the file and enter the directories above it, and see that no link "
        "leads out of the datastore",
        path=place,
        user=os.geteuid(),
    )


def _changed(place: Path) -> SourceChangedError:
    return SourceChangedError(f"{str(place)!r} was changed while it was read", path=place)
