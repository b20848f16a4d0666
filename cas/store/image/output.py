"""Where an export goes: a file that appears when it is whole, or a stream."""

__all__ = ["image_output"]

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cas.errors import UsageError
from cas.fsops.durable import publish, remove_file, temporary_name
from cas.fsops.inode import StagedInode
from cas.fsops.translation import translated
from cas.store.image.archives.tar_writer import Writable

_FILE_MODE = 0o600  # as docker save: images may hold secrets


@contextmanager
def image_output(out: Path | Writable) -> Iterator[Writable]:
    """Give what to write to.

    A regular file (new or to be replaced) appears under its name when the context ends well,
    durable; until then, and after a failure, the name is as it was. A symbolic link is followed.
    A pipe, a device or a stream is written as it is, and what was written stays.

    Raises:
        UsageError: The path is a directory, or its directory does not exist.
        NoSpaceError: No room.
        DeniedError: The process may not write there.
        StorageError: Any other failed system call, a reader that went away included.
    """
    if not isinstance(out, Path):
        yield _Translated(out, "the output stream")
        return
    path = Path(os.path.realpath(out))
    kind = _kind(path)
    if kind is None or stat.S_ISREG(kind):
        with _replaced_file(path) as file:
            yield file
        return
    if stat.S_ISDIR(kind):
        raise UsageError(f"{str(out)!r} is a directory; give a file to write", path=out)
    with translated("open", path):
        stream = path.open("wb")
    with stream:
        yield _Translated(stream, repr(str(path)))


def _kind(path: Path) -> int | None:
    if not path.parent.is_dir():
        raise UsageError(f"{str(path.parent)!r} is not a directory to write into", path=path)
    with translated("inspect", path), suppress(FileNotFoundError):
        return path.stat().st_mode
    return None


@contextmanager
def _replaced_file(path: Path) -> Iterator[Writable]:
    with StagedInode.anonymous(path.parent) as staged:
        yield staged
        staged.seal()
        temporary = path.parent / temporary_name()
        staged.link(temporary)
        try:
            with translated("set the mode of", path):
                os.fchmod(staged.fileno(), _FILE_MODE)
            publish(temporary, path, replace=True)
        except BaseException:
            remove_file(temporary)
            raise


class _Translated:
    """A stream whose failures are errors of ours."""

    def __init__(self, stream: Writable, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, data: bytes, /) -> object:
        with translated("write", self._name):
            return self._stream.write(data)
