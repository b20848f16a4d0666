"""What can be asked of, and done to, an open file rather than a name; used inside fsops only.

A name may be swapped between two calls, a descriptor not. Everything here raises ``OSError``;
callers translate.
"""

__all__ = [
    "clone",
    "drop_lease",
    "holds_lease",
    "is_immutable",
    "is_wanted_to_write",
    "link",
    "mount_id",
    "open_directory",
    "read_chunks",
    "reopen_for_reading",
    "take_lease",
    "write_all",
]

import errno
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cas.fsops import kernel
from cas.fsops.effects import Effect, effect
from cas.model.limits import CHUNK_BYTES

_FS_IOC_GETFLAGS = 0x80086601
_FLAGS = struct.Struct("=L")
_IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20
_NO_CLONE = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
)
_NO_LEASES = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK, errno.EACCES})


def open_directory(path: Path) -> int:
    """Open a directory, never through a symbolic link as its last component."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data`` at the descriptor's position."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_chunks(descriptor: int, offset: int = 0) -> Iterator[bytes]:
    """Read from ``offset`` to the end, chunks of at most 1 MiB, leaving the position alone."""
    while chunk := os.pread(descriptor, CHUNK_BYTES, offset):
        offset += len(chunk)
        yield chunk


def link(descriptor: int, target: Path) -> bool:
    """Give an open file the name ``target``; False if the name is taken."""
    effect(Effect.LINK, target)
    try:
        # src_dir_fd makes Python call linkat, which alone follows /proc's link to the inode.
        os.link(f"/proc/self/fd/{descriptor}", target, src_dir_fd=descriptor, follow_symlinks=True)
    except FileExistsError:
        return False
    return True


def reopen_for_reading(descriptor: int) -> int:
    """Open the same inode again, to read only, whether or not it has a name."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def clone(source_fd: int, target_fd: int) -> bool:
    """Let the target share the source's blocks; False where the file system cannot do that."""
    try:
        kernel.clone_range(source_fd, target_fd)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def take_lease(descriptor: int, *, alone: bool = False) -> bool:
    """Take a read lease on a file that is open to read.

    Success proves that nobody has the file open for writing, a writable mapping included. From
    then on an opener for writing waits, until the lease is dropped or the kernel's patience
    (/proc/sys/fs/lease-break-time) ends; either way :func:`holds_lease` tells afterwards.

    Args:
        descriptor: Of the file.
        alone: Take a write lease: all that is said of writers holds of readers, too, and
            :func:`is_wanted_to_write` tells of writers afterwards. Who opens without waiting
            (``O_NONBLOCK``) fails meanwhile.

    Returns:
        False where the file system, or this process, may have no leases.

    Raises:
        BlockingIOError: Somebody has the file open for writing, or at all.
    """
    # The kernel announces a breaker by a signal. SIGIO would end the process; SIGURG is ignored
    # unless somebody handles it.
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK if alone else fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in _NO_LEASES:
            return False
        raise
    return True


def holds_lease(descriptor: int) -> bool:
    """Whether the read lease is held and nobody waits for its end."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def is_wanted_to_write(descriptor: int) -> bool:
    """Whether a write lease has to end altogether, for somebody who opens for writing."""
    return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_UNLCK


def drop_lease(descriptor: int) -> None:
    """Give the lease back, unless the kernel has taken it; an opener who waits goes on."""
    with suppress(BlockingIOError):  # its patience with us was over
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def mount_id(descriptor: int) -> int:
    """The mount through which a file was opened: links and renames do not cross mounts."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["mnt_id"])


def is_immutable(descriptor: int) -> bool:
    """Whether the file's flags forbid changing, linking or removing it."""
    buffer = bytearray(8)
    try:
        fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, buffer, True)  # noqa: FBT003 - positional only
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            return False
        raise
    (flags,) = _FLAGS.unpack_from(buffer)
    return bool(flags & _IMMUTABLE_OR_APPEND_ONLY)
