"""System calls that Python does not offer, each as a typed function; used inside fsops only.

A call that fails raises ``OSError`` with the kernel's errno, as functions of :mod:`os` do; callers
translate. A call that a signal interrupts is made again after Python's handlers ran, so that
Ctrl-C gets through. Paths travel as file system bytes, so that any name the kernel has can be
said back to it.
"""

__all__ = [
    "clone_range",
    "forbid_dumps",
    "fsconfig_create",
    "fsconfig_flag",
    "fsconfig_string",
    "fsmount",
    "fsopen",
    "lock_all_memory",
    "lock_memory",
    "mount",
    "move_mount",
    "rename",
    "reserve",
    "start_writeback",
    "sync_file_system",
    "unmount",
    "unshare_working_directory",
]

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_FALLOC_FL_KEEP_SIZE = 1
_SYNC_FILE_RANGE_WRITE = 2
_CLONE_FS = 0x00000200
_FICLONE = 0x40049409
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_MCL_ONFAULT = 4
_PR_SET_DUMPABLE = 4

# Numbers from 424 on are the same on every architecture; C libraries have wrappers only lately.
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 4


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    library.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    library.sync_file_range.argtypes = [
        ctypes.c_int,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_uint,
    ]
    library.mount.argtypes = [
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
    ]
    library.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return library


def _call(function: Callable[..., int], *arguments: object) -> int:
    while True:
        result = function(*arguments)
        if result >= 0:
            return result
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def rename(source: Path, target: Path, *, replace: bool = False, exchange: bool = False) -> None:
    """``renameat2``; without ``replace`` an existing target is EEXIST, atomically."""
    flags = _RENAME_EXCHANGE if exchange else 0 if replace else _RENAME_NOREPLACE
    _call(
        _libc().renameat2,
        _AT_FDCWD,
        os.fsencode(source),
        _AT_FDCWD,
        os.fsencode(target),
        ctypes.c_uint(flags),
    )


def sync_file_system(descriptor: int) -> None:
    """``syncfs``: everything dirty on the descriptor's file system is on its device."""
    _call(_libc().syncfs, descriptor)


def reserve(descriptor: int, size: int) -> None:
    """``fallocate`` the first ``size`` bytes and leave the file's size as it is."""
    _call(_libc().fallocate, descriptor, _FALLOC_FL_KEEP_SIZE, 0, size)


def start_writeback(descriptor: int, offset: int, size: int) -> None:
    """``sync_file_range``: begin to write dirty pages, without waiting and without promise."""
    _call(_libc().sync_file_range, descriptor, offset, size, _SYNC_FILE_RANGE_WRITE)


def clone_range(source: int, target: int) -> None:
    """``FICLONE``: let the target share all blocks of the source."""
    fcntl.ioctl(target, _FICLONE, source)


def mount(source: str, target: Path, fs_type: str | None, flags: int, data: str | None) -> None:
    """``mount(2)``. The kernel cuts ``data`` at a page without saying so."""
    _call(
        _libc().mount,
        os.fsencode(source),
        os.fsencode(target),
        None if fs_type is None else fs_type.encode(),
        flags,
        None if data is None else os.fsencode(data),
    )


def unmount(target: Path, flags: int) -> None:
    """``umount2``."""
    _call(_libc().umount2, os.fsencode(target), flags)


def fsopen(fs_type: str) -> int:
    """Begin a mount; gives the descriptor to configure it with, which the caller closes."""
    return _call(_libc().syscall, _SYS_FSOPEN, fs_type.encode(), _FSOPEN_CLOEXEC)


def _fsconfig(context: int, command: int, key: str | None, value: str | None) -> None:
    _call(
        _libc().syscall,
        _SYS_FSCONFIG,
        context,
        command,
        None if key is None else key.encode(),
        None if value is None else os.fsencode(value),
        0,
    )


def fsconfig_string(context: int, key: str, value: str) -> None:
    """Give a mount under construction the option ``key=value``."""
    _fsconfig(context, _FSCONFIG_SET_STRING, key, value)


def fsconfig_flag(context: int, key: str) -> None:
    """Give a mount under construction the option ``key``."""
    _fsconfig(context, _FSCONFIG_SET_FLAG, key, None)


def fsconfig_create(context: int) -> None:
    """Make the file system that was configured."""
    _fsconfig(context, _FSCONFIG_CMD_CREATE, None, None)


def fsmount(context: int, attributes: int) -> int:
    """Make a detached mount of it; gives its descriptor, which the caller closes."""
    return _call(_libc().syscall, _SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)


def move_mount(detached: int, target: Path) -> None:
    """Attach a detached mount to ``target``."""
    _call(
        _libc().syscall,
        _SYS_MOVE_MOUNT,
        detached,
        b"",
        _AT_FDCWD,
        os.fsencode(target),
        _MOVE_MOUNT_F_EMPTY_PATH,
    )


def unshare_working_directory() -> None:
    """Give this thread a working directory of its own, for good."""
    _call(_libc().unshare, _CLONE_FS)


def lock_memory(memory: mmap.mmap) -> None:
    """``mlock``: the pages stay in memory until they are unmapped."""
    pointer = ctypes.c_char.from_buffer(memory)
    try:
        _call(_libc().mlock, ctypes.addressof(pointer), len(memory))
    finally:
        del pointer  # it keeps the mapping from being closed


def lock_all_memory() -> None:
    """``mlockall``: every page that the process uses, now or later, stays in memory."""
    _call(_libc().mlockall, _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)


def forbid_dumps() -> None:
    """``PR_SET_DUMPABLE``: no core dump, and no attaching by processes that are not root."""
    _call(_libc().prctl, _PR_SET_DUMPABLE, 0, 0, 0, 0)
