"""What has to be so before a thing is converted; looked at before anything is changed."""

__all__ = ["require_ready"]

import os
from pathlib import Path

from cas.containerd.root_directory import find_root_holder
from cas.errors import DeniedError, InUseError, LayoutError
from cas.fsops.descriptors import is_immutable
from cas.fsops.takeover import has_writer
from cas.fsops.translation import translated
from cas.upgrade.completion import ROOTFS, SNAPSHOT_KEY
from cas.upgrade.items import FileType, Found, Kind


def require_ready(found: Found, target: Path) -> None:
    """See that a thing can become its target as it is.

    Raises:
        DeniedError: It is immutable or append-only.
        LayoutError: Something stands where a container gets something.
        InUseError: A virtual machine works on it, or a containerd on a store.
        StorageError: A system call failed.
    """
    _require_movable(found.path)
    _require_shape(found)
    _require_idle(found, target)


def _require_movable(path: Path) -> None:
    """See that nothing bars a thing from getting another name."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with translated("inspect", path):
        descriptor = os.open(path, flags)
        try:
            if is_immutable(descriptor):
                raise DeniedError(
                    f"{str(path)!r} is immutable or append-only, and cannot get another name; take "
                    "that off with `chattr -i -a`, and run the upgrade again",
                    path=path,
                )
        finally:
            os.close(descriptor)


def _require_shape(found: Found) -> None:
    """See that nothing stands where a container gets something; before it is copied."""
    if not found.is_container:
        return
    rootfs, key = found.path / ROOTFS, found.path / SNAPSHOT_KEY
    no_directory = rootfs.is_symlink() or (rootfs.exists() and not rootfs.is_dir())
    for path, is_wrong in ((rootfs, no_directory), (key, key.is_dir() and not key.is_symlink())):
        if is_wrong:
            raise LayoutError(
                f"{str(path)!r} is in the way of what a container needs there; move it away, and "
                "run the upgrade again",
                path=path,
            )


def _require_idle(found: Found, target: Path) -> None:
    """See that nobody works on a thing: no virtual machine on a disk, no containerd on a store."""
    is_disk = found.type is FileType.FILE and found.kind in (Kind.DISK, Kind.SUFFIXED)
    if is_disk and has_writer(found.path):
        raise InUseError(
            f"{str(found.path)!r} is open for writing; stop who uses it, and run the upgrade again",
            path=found.path,
        )
    if found.kind is not Kind.STORE:
        return
    for store in (found.path, target):
        holder = find_root_holder(store)
        if holder is not None:
            raise InUseError(
                f"{holder.command} (process {holder.pid}) runs on the store {str(store)!r}; stop "
                "it, and run the upgrade again",
                path=store,
                pid=holder.pid,
            )
