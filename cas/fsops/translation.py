"""From errno to the errors of :mod:`cas.errors`; used by every function of fsops.

Decides by number, never by text. Keeps nothing to itself: each error names the action, the path,
the kernel's word for it and what to do where that is known.
"""

__all__ = ["storage_error", "translated"]

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from cas.errors import (
    AlreadyExistsError,
    CasError,
    DeniedError,
    InUseError,
    NoSpaceError,
    SourceNotFoundError,
    StorageError,
    VaultLockedError,
)

_CLASSES: Mapping[int, type[CasError]] = MappingProxyType(
    {
        errno.ENOSPC: NoSpaceError,
        errno.EDQUOT: NoSpaceError,
        errno.EACCES: DeniedError,
        errno.EPERM: DeniedError,
        errno.ENOKEY: VaultLockedError,
        errno.EBUSY: InUseError,
        errno.ETXTBSY: InUseError,
        errno.EEXIST: AlreadyExistsError,
    }
)

_ADVICE: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: "make room, for example with `cas prune`",
        errno.EDQUOT: "make room or raise the quota",
        errno.EACCES: "run as root",
        errno.EPERM: "run as root, and see whether the file is immutable",
        errno.ENOKEY: "unlock the vault first",
        errno.EROFS: "the file system is read-only, often after an error: see the kernel log",
        errno.EFBIG: "the file system has no files so large: ask for less, or for qcow2",
        errno.EIO: "the device failed: see the kernel log",
        errno.EMFILE: "raise the limit of open files",
        errno.ENFILE: "raise the system's limit of open files",
        errno.ELOOP: "a symbolic link is not accepted here",
        errno.EXDEV: "both names must be on one file system, under one mount and one key",
    }
)


def storage_error(
    action: str, path: os.PathLike[str] | str, cause: OSError, *, source: bool = False
) -> CasError:
    """Make the error for a failed system call; the caller raises it ``from cause``.

    Args:
        action: Verb of the message, such as ``rename``.
        path: What it was done to.
        cause: The kernel's answer.
        source: The path is something that the caller gave to read, so that its absence is
            :class:`SourceNotFoundError` and not a broken store.
    """
    number = cause.errno or 0
    name = errno.errorcode.get(number, str(number))
    kind: type[CasError] = _CLASSES.get(number, StorageError)
    advice = _ADVICE.get(number)
    if source and number == errno.ENOENT:
        kind, advice = SourceNotFoundError, "check the path"
    why = (cause.strerror or os.strerror(number)).lower()
    message = f"cannot {action} {os.fspath(path)!r}: {why} ({name})"
    if advice is not None:
        message = f"{message}; {advice}"
    return kind(message, path=os.fspath(path), errno=name)


@contextmanager
def translated(
    action: str, path: os.PathLike[str] | str, *, source: bool = False
) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an error of ours that names action and path.

    Args:
        action: Verb of the message, such as ``rename``.
        path: What it is done to.
        source: See :func:`storage_error`.

    Raises:
        NoSpaceError: No room or quota left.
        DeniedError: The process lacks the right.
        VaultLockedError: The directory is encrypted and its key is absent.
        InUseError: The kernel says busy.
        AlreadyExistsError: The name is taken.
        SourceNotFoundError: ``source`` is set and the path does not exist.
        StorageError: Anything else, with the name of the errno.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(action, path, error, source=source) from error
