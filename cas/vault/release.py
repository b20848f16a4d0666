"""Makes an open vault free of users and takes its key; what is half done is not called locked."""

__all__ = ["lock_directory", "release_vault"]

import time

from cas.containerd.root_directory import find_root_holder
from cas.errors import InUseError, InvalidNameError
from cas.fsops.durable import sync_file_system
from cas.fsops.holders import holders
from cas.fsops.mounts import MountPoint, mounts_below, unmount
from cas.model.cancellation import check_operation, while_wanted
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.store.locking import Locks
from cas.vault.directory import VaultDirectory

_POLL_SECONDS = 0.02


def release_vault(layout: Layout, *, deadline: float) -> None:
    """Deactivate every volume of the vault, and see its containerd end.

    The caller holds the lock that says that the vault is closing, on which supervisors stop their
    containerd. Idempotent. After a failure some volumes may be inactive.

    Args:
        layout: Where.
        deadline: Of ``time.monotonic``, for containerd to end.

    Raises:
        InUseError: A process uses a volume, something else is mounted in the vault, or a
            containerd that nobody supervises does not end.
        InterruptedOperationError: The operation that this belongs to was stopped.
        StorageError: A system call failed.
    """
    for mount in while_wanted(mounts_below(layout.vault)):
        _deactivate(layout, mount)
    while (holder := find_root_holder(layout.case)) is not None:
        check_operation()
        if time.monotonic() > deadline:
            raise InUseError(
                f"{holder.command} (pid {holder.pid}) still runs on {str(layout.case)!r}; "
                "stop it, then lock again",
                path=layout.case,
                pid=holder.pid,
            )
        time.sleep(_POLL_SECONDS)


def _deactivate(layout: Layout, mount: MountPoint) -> None:
    name = _volume_of(layout, mount)
    if name is None:
        raise InUseError(
            f"{mount.fs_type} is mounted at {str(mount.path)!r}, which is no volume; unmount it, "
            "then lock again",
            path=mount.path,
        )
    with Locks(layout).volume(name):
        sync_file_system(mount.path)
        unmount(mount.path)


def _volume_of(layout: Layout, mount: MountPoint) -> VolumeName | None:
    try:
        name = VolumeName.parse(mount.path.parent.name)
    except InvalidNameError:
        return None
    expected = layout.volume_rootfs(name)
    return name if mount.path == expected.parent.resolve() / expected.name else None


def lock_directory(vault: VaultDirectory, *, deadline: float) -> None:
    """Take the key of an encrypted directory from the kernel, and see that nothing is readable.

    Idempotent, so that what is half locked can be locked. After a failure new files are refused
    all the same. Calls of a service that were under way end by themselves, so that they are waited
    for.

    Args:
        vault: Which.
        deadline: Of ``time.monotonic``, for whoever has files in it open.

    Raises:
        InUseError: Files in it are still open; it is half locked.
        InterruptedOperationError: The operation that this belongs to was stopped; it is half
            locked.
        StorageError: A system call failed.
    """
    while not vault.remove_key():
        check_operation()
        if time.monotonic() > deadline:
            raise _half_locked(vault)
        time.sleep(_POLL_SECONDS)
    vault.forget_unlock()


def _half_locked(vault: VaultDirectory) -> InUseError:
    users = ", ".join(f"process {pid} ({name})" for pid, name in holders(vault.path))
    return InUseError(
        f"{str(vault.path)!r} is half locked: its key is gone and what is open can still be read, "
        f"by {users or 'somebody unseen, as in another mount namespace'}; stop that and lock again",
        path=vault.path,
        users=users,
    )
