"""What a file has beside its content: owner, mode, times, extended attributes.

Access lists, file capabilities and what an overlay notes about its layers are extended attributes.
Everything here raises ``OSError``; callers translate.
"""

__all__ = ["copy_attributes", "copy_extended", "describe"]

import errno
import os
import stat
from contextlib import suppress

_NO_ATTRIBUTES = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})
_OF_THE_MACHINE = frozenset({"security.selinux", "security.evm", "security.ima"})
"""What the running kernel gives a file by itself, according to its own policy."""


def _path(directory: int, name: str) -> str:
    return f"/proc/self/fd/{directory}/{name}" if name else f"/proc/self/fd/{directory}"


def _follows(name: str) -> bool:
    # The link in /proc to the directory itself has to be followed.
    return not name


def _extended(directory: int, name: str) -> dict[str, bytes]:
    path, follows = _path(directory, name), _follows(name)
    try:
        names = os.listxattr(path, follow_symlinks=follows)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return {}
        raise
    return {
        attribute: os.getxattr(path, attribute, follow_symlinks=follows)
        for attribute in sorted(names)
        if attribute not in _OF_THE_MACHINE
    }


def copy_attributes(source: tuple[int, str], target: tuple[int, str]) -> None:
    """Give one entry what another has; to be called when its content is complete.

    Args:
        source: Descriptor of a directory, and a name in it; empty for the directory itself.
        target: Likewise.
    """
    status = os.stat(_path(*source), follow_symlinks=_follows(source[1]))
    path, follows = _path(*target), _follows(target[1])
    # In this order: a change of owner takes bits and capabilities away, the rest changes times.
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=follows)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode))
    copy_extended(source, target)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=follows)


def copy_extended(source: tuple[int, str], target: tuple[int, str]) -> None:
    """Give one entry the extended attributes of another; both as for :func:`copy_attributes`."""
    path, follows = _path(*target), _follows(target[1])
    wanted = _extended(*source)
    for name in _extended(*target):
        if name not in wanted:
            with suppress(OSError):  # one that stays is found by the comparison
                os.removexattr(path, name, follow_symlinks=follows)
    for name, value in wanted.items():
        os.setxattr(path, name, value, follow_symlinks=follows)


def describe(directory: int, name: str, status: os.stat_result) -> bytes:
    """Give the attributes as bytes that are equal if and only if they are."""
    fields = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns]
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        fields.append(status.st_rdev)
    extended = [(key.encode(), value) for key, value in _extended(directory, name).items()]
    return repr((fields, extended)).encode()
