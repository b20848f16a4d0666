"""What is mounted, mounting what a snapshotter describes, and unmounting.

Knows the two shapes of mounts that a local snapshotter gives, bind and overlay, and refuses
everything else rather than guess. Whether something *should* be mounted, and whether it is mounted
already, is for callers to decide: the kernel accepts a second mount of the same writable layer.
"""

__all__ = ["MountPoint", "find_mount", "holders", "iter_mounts", "mount", "mounts_below", "unmount"]

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cas.errors import InUseError, StorageError
from cas.fsops import kernel
from cas.fsops.effects import Effect, effect
from cas.fsops.holders import holders
from cas.fsops.overlay import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    Overlay,
    mount_overlay,
)
from cas.fsops.translation import storage_error, translated
from cas.model.records import Mount

_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
_BACKSLASHED = re.compile(r"\\(.)")
_MS_REMOUNT = 32
_MS_BIND = 4096
_MS_REC = 16384
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_FLAGS = {
    "ro": MS_RDONLY,
    "nodev": MS_NODEV,
    "nosuid": MS_NOSUID,
    "noexec": MS_NOEXEC,
    "rw": 0,
    "defaults": 0,
}
_BIND = {"bind": _MS_BIND, "rbind": _MS_BIND | _MS_REC}
_FOR_CLIENTS = ("uidmap=", "gidmap=", "X-containerd.")
"""Options of newer snapshotters that a client must act on; passing them on would be wrong."""


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of the mount table.

    Args:
        path: Where it is mounted.
        fs_type: Such as ``overlay`` or ``ext4``; a bind mount has that of its source.
        source: What the mounter called the source.
        options: Options of the file system as a person reads them; to take one out, use
            :meth:`option`.
        mount_id: Number of this mount.
        parent_id: Number of the mount that it is mounted on.
        device: ``st_dev`` of what is mounted.
        read_only: Whether this mount, or the file system, is read-only.
        root: Directory within the file system that is mounted; not ``/`` for bind mounts.
        raw_options: Options as the kernel writes them, escapes included.
    """

    path: Path
    fs_type: str
    source: str
    options: str
    mount_id: int
    parent_id: int
    device: int
    read_only: bool
    root: Path
    raw_options: str

    def option(self, name: str) -> str | None:
        """The plain value of the option ``name=...`` (such as ``upperdir``), or None."""
        prefix = f"{name}="
        for option in self.raw_options.split(","):  # commas within values are octal there
            if option.startswith(prefix):
                return _BACKSLASHED.sub(r"\1", _unescaped(option.removeprefix(prefix)))
        return None


def _unescaped(field: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def iter_mounts(table: str | None = None) -> Iterator[MountPoint]:
    """Give the mounts of this process's mount namespace, earlier ones first.

    The table is read at once, so that it is consistent while mounts come and go.

    Args:
        table: Text of another process's table instead.

    Raises:
        StorageError: It cannot be read.
    """
    if table is None:
        with translated("read", _MOUNTINFO):
            table = os.fsdecode(_MOUNTINFO.read_bytes())
    return (_parse(line) for line in table.split("\n") if line)


def _parse(line: str) -> MountPoint:
    # number parent major:minor root path options tags... - type source super-options
    left, _, right = line.partition(" - ")
    mount_id, parent_id, device, root, path, options, *_ = left.split(" ")
    fs_type, source, super_options = right.split(" ", 2)
    major, _, minor = device.partition(":")
    return MountPoint(
        path=Path(_unescaped(path)),
        fs_type=_unescaped(fs_type),
        source=_unescaped(source),
        options=_unescaped(super_options),
        mount_id=int(mount_id),
        parent_id=int(parent_id),
        device=os.makedev(int(major), int(minor)),
        read_only="ro" in (*options.split(","), *super_options.split(",")),
        root=Path(_unescaped(root)),
        raw_options=super_options,
    )


def find_mount(path: Path) -> MountPoint | None:
    """Find what is mounted exactly at ``path``; the uppermost if several are.

    Symbolic links in the path's directory are resolved, its last component is taken as it is.

    Raises:
        StorageError: The mount table cannot be read.
    """
    stack = _stack(path)
    covered = {mount.parent_id for mount in stack}
    return next((mount for mount in reversed(stack) if mount.mount_id not in covered), None)


def _stack(path: Path) -> list[MountPoint]:
    resolved = _resolved(path)
    return [mount for mount in iter_mounts() if mount.path == resolved]


def _resolved(path: Path) -> Path:
    with translated("resolve", path):
        return path.parent.resolve() / path.name


def mounts_below(path: Path) -> list[MountPoint]:
    """Find what is mounted below ``path``, itself not counted; in order of unmounting.

    Raises:
        StorageError: The mount table cannot be read.
    """
    resolved = _resolved(path)
    below = [mount for mount in iter_mounts() if resolved in mount.path.parents]
    return sorted(below, key=lambda mount: len(mount.path.parts), reverse=True)


def mount(mounts: Sequence[Mount], target: Path, *, nodev: bool = True) -> None:
    """Mount what a snapshotter described, one on the other, at ``target``.

    After a failure nothing of it is mounted. Not idempotent: a second call mounts again, on top.

    Args:
        mounts: As the snapshotter gave them; types ``bind`` and ``overlay``.
        target: An existing directory.
        nodev: Make device nodes of the content useless.

    Raises:
        LimitExceededError: More layers than the kernel's overlay takes.
        DeniedError: The process may not mount.
        StorageError: A type or option that is not understood, or a failed system call.
    """
    if not mounts:
        message = f"nothing to mount at {str(target)!r}: the snapshotter named no mount"
        raise StorageError(message, path=target)
    before = len(_stack(target))
    try:
        for description in mounts:
            _mount_one(description, target, MS_NODEV if nodev else 0)
    except BaseException:
        _unmount_down_to(before, target)
        raise


def _unmount_down_to(depth: int, target: Path) -> None:
    while len(_stack(target)) > depth:
        effect(Effect.UNMOUNT, target)
        # Detached, since nothing may stay; whoever entered in between keeps what he entered.
        with suppress(OSError):
            kernel.unmount(target, _MNT_DETACH | _UMOUNT_NOFOLLOW)
            continue
        return


def _mount_one(description: Mount, target: Path, flags: int) -> None:
    _refuse_unknown(description, target)
    for option in description.options:
        flags |= _FLAGS.get(option, 0)
    if description.type == "bind":
        _mount_bind(description, target, flags)
        return
    options = [option for option in description.options if option not in _FLAGS]
    overlay = Overlay.parse(options, flags)
    effect(Effect.MOUNT, target)
    try:
        mount_overlay(overlay, target)
    except OSError as error:
        raise storage_error("mount", _culprit(overlay, target), error) from error


def _refuse_unknown(description: Mount, target: Path) -> None:
    foreign = [option for option in description.options if option.startswith(_FOR_CLIENTS)]
    if description.type == "bind":
        foreign = [o for o in description.options if o not in _FLAGS and o not in _BIND]
    if description.type not in ("bind", "overlay") or foreign:
        message = (
            f"cannot mount {str(target)!r}: the snapshotter asks for type {description.type!r} "
            f"with options {foreign}, and only plain bind and overlay mounts are understood; "
            "use the overlayfs snapshotter without such options"
        )
        raise StorageError(message, path=target, type=description.type)


def _culprit(overlay: Overlay, target: Path) -> str:
    """The directory that is missing, if one is; the kernel does not say which."""
    places = (*overlay.directories(), str(target))
    return next((path for path in places if not os.path.isdir(path)), str(target))


def _mount_bind(description: Mount, target: Path, flags: int) -> None:
    bind = _MS_BIND
    for option in description.options:
        bind |= _BIND.get(option, 0)
    effect(Effect.MOUNT, target)
    with translated(f"bind {description.source!r} to", target):
        kernel.mount(description.source, target, None, bind, None)
        if flags:  # the kernel ignores them at the first call
            kernel.mount("none", target, None, _MS_REMOUNT | _MS_BIND | flags, None)


def unmount(target: Path, *, lazily: bool = False) -> bool:
    """Take away the uppermost mount at ``target``.

    Args:
        target: The mount point; never followed when it is a symbolic link.
        lazily: Detach it at once and let its users finish; the kernel keeps it, and its layers,
            busy until the last one is done.

    Returns:
        False if nothing was mounted there.

    Raises:
        InUseError: It is busy; the message names who keeps it so.
        DeniedError: The process may not unmount.
        StorageError: Any other failed system call.
    """
    effect(Effect.UNMOUNT, target)
    try:
        kernel.unmount(target, _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(target) from error
        if error.errno in (errno.EINVAL, errno.ENOENT) and find_mount(target) is None:
            return False
        raise storage_error("unmount", target, error) from error
    return True


def _busy(target: Path) -> InUseError:
    users = [f"process {pid} ({name})" for pid, name in holders(target)]
    users += [f"mount {str(mount.path)!r}" for mount in mounts_below(target)]
    message = (
        f"cannot unmount {str(target)!r}: in use by {', '.join(users) or 'somebody unseen'}; "
        "stop that first, or force it"
    )
    return InUseError(message, path=target, users=", ".join(users))
