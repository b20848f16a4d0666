"""Files that must lie below a directory, whatever somebody does to the path meanwhile.

Whoever reads a file that somebody else names must not be led elsewhere: by ``..``, by a symbolic
link, or by one that takes a directory's place between a look and the opening. So the path is
walked by descriptors, and no component below the directory may be a link. Without a directory
(``beneath`` is None) paths mean what they always mean.
"""

__all__ = ["inspect", "open_source", "reached", "remove_unchanged"]

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cas.errors import DeniedError
from cas.fsops.effects import Effect, effect
from cas.fsops.translation import translated

_WALK = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LED_ASIDE = (errno.ELOOP, errno.ENOTDIR)


@contextmanager
def reached(path: Path, beneath: Path | None) -> Iterator[Path]:
    """Give a path to the same name that cannot be led elsewhere while the block lasts.

    Its last component may still be a symbolic link, or become one: do not follow it.

    Raises:
        DeniedError: The path is not below ``beneath``, or leads through a symbolic link.
        SourceNotFoundError: A directory of it does not exist.
    """
    if beneath is None:
        yield path
        return
    directory = _open_parent(path, beneath)
    try:
        yield Path(f"/proc/self/fd/{directory}") / path.name
    finally:
        os.close(directory)


def inspect(path: Path, beneath: Path | None) -> os.stat_result:
    """Give the status of a file or directory.

    Raises:
        DeniedError: See :func:`reached`; also if it is a symbolic link itself.
        SourceNotFoundError: There is nothing of this name.
    """
    with reached(path, beneath) as safe, translated("inspect", path, source=True):
        status = safe.stat(follow_symlinks=beneath is None)
    if stat.S_ISLNK(status.st_mode):
        raise _led_aside(path)
    return status


def open_source(path: Path, beneath: Path | None) -> int:
    """Open a file to read; closing it is the caller's.

    Raises:
        DeniedError: See :func:`reached`; also if it is a symbolic link itself, or may not be read.
        SourceNotFoundError: There is no such file.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC
    if beneath is not None:
        # What is no regular file must not make us wait for whoever has its other end.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
    with reached(path, beneath) as safe, translated("open", path, source=True):
        try:
            return os.open(safe, flags)
        except OSError as error:
            if beneath is not None and error.errno == errno.ELOOP:
                raise _led_aside(path) from error
            raise


def remove_unchanged(path: Path, read: os.stat_result, *, beneath: Path | None = None) -> bool:
    """Remove a file durably, if its name still is the inode that was read, unchanged.

    Args:
        path: The file.
        read: Its status when it was opened.
        beneath: See the module.

    Returns:
        Whether it was removed; False also when it is gone.

    Raises:
        StorageError: A system call failed.
    """
    with reached(path, beneath) as safe, translated("remove", path):
        try:
            directory = os.open(safe.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return _remove_from(directory, path, read)
        finally:
            os.close(directory)


def _remove_from(directory: int, path: Path, read: os.stat_result) -> bool:
    try:
        named = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
        if _fingerprint(named) != _fingerprint(read):
            return False
        effect(Effect.UNLINK, path)
        os.unlink(path.name, dir_fd=directory)
    except FileNotFoundError:
        return False
    effect(Effect.FSYNC, path.parent)
    os.fsync(directory)
    return True


def _open_parent(path: Path, beneath: Path) -> int:
    names = _names_below(path, beneath)
    with translated("open", path, source=True):
        directory = os.open(beneath, _WALK)
        for name in names[:-1]:
            try:
                below = os.open(name, _WALK | os.O_NOFOLLOW, dir_fd=directory)
            except OSError as error:
                if error.errno in _LED_ASIDE:
                    raise _led_aside(path) from error
                raise
            finally:
                os.close(directory)
            directory = below
    return directory


def _names_below(path: Path, beneath: Path) -> tuple[str, ...]:
    if not path.is_relative_to(beneath) or path == beneath or ".." in path.parts:
        raise DeniedError(
            f"{str(path)!r} is not below {str(beneath)!r}", path=path, directory=beneath
        )
    return path.relative_to(beneath).parts


def _led_aside(path: Path) -> DeniedError:
    return DeniedError(
        f"{str(path)!r} is, or leads through, a symbolic link or something that is no directory; "
        "name the file itself",
        path=path,
    )


def _fingerprint(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
