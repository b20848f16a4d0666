"""What a thing needs beside its content to be of use under its new name.

A container gets its snapshot's key and a mount point; a store is closed to everybody but root; a
verified download is hashed, and becomes the verifier's, unchangeable.
"""

__all__ = ["ROOTFS", "SNAPSHOT_KEY", "complete", "give_name", "snapshot_key"]

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from cas.errors import DigestMismatchError, InUseError
from cas.fsops.durable import (
    make_directory,
    publish,
    remove_temporaries,
    set_owner_and_mode,
    write_file,
)
from cas.fsops.inode import ExclusiveInode
from cas.fsops.translation import translated
from cas.fsops.trees import remove_empty_directories
from cas.model.digest import Digest
from cas.upgrade.items import Found, Kind

SNAPSHOT_KEY = "snapshotid.txt"
_SNAPSHOT_KEY_MODE = 0o644
_MAX_KEY_BYTES = 4096
ROOTFS = "rootfs"
_ROOTFS_MODE = 0o755
_STORE_MODE = 0o700
_VERIFIED_MODE = 0o440


def complete(found: Found, place: Path, target: Path, *, advance: Callable[[int], object]) -> None:
    """Add what is missing, durably. Idempotent.

    Args:
        found: What it was.
        place: Where it, or its copy, is now.
        target: Where it belongs.
        advance: Told how many bytes more of a download were read; may stop it.

    Raises:
        DigestMismatchError: It is a download with another content than its name says.
        InUseError: It is a download that somebody writes to, or that has a second name.
        LayoutError: Something else has the name of the mount point.
        StorageError: A system call failed.
    """
    if found.kind is Kind.STORE:
        set_owner_and_mode(place, user=0, group=0, mode=_STORE_MODE)
    elif found.kind is Kind.VERIFIED:
        _verify(found, place, target.parent.lstat(), advance)
    elif found.is_container:
        remove_temporaries(place)  # of a run that was killed right here
        key = place / SNAPSHOT_KEY
        if not _is_file(key):
            write_file(key, found.path.name.encode(), mode=_SNAPSHOT_KEY_MODE)
        make_directory(place / ROOTFS, mode=_ROOTFS_MODE)


def snapshot_key(container: Path) -> str:
    """Tell which snapshot an old container's directory belongs to.

    Raises:
        StorageError: A system call failed.
    """
    key = container / SNAPSHOT_KEY
    if not _is_file(key):
        return container.name
    with translated("read", key), key.open("rb") as file:
        return os.fsdecode(file.read(_MAX_KEY_BYTES)).strip() or container.name


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _verify(
    found: Found, place: Path, owner: os.stat_result, advance: Callable[[int], object]
) -> None:
    """See that a file is what it claims to be, and then make it unchangeable and the verifier's."""
    taken = ExclusiveInode.take(place, place.parent)
    if taken is None:
        raise InUseError(
            f"{str(found.path)!r} has a writer or a second name, so that what is verified could "
            "change; run the upgrade again when nobody uses it",
            path=found.path,
        )
    running = hashlib.sha256()
    with taken:
        for chunk in taken.chunks():
            running.update(chunk)
            advance(len(chunk))
        _require_digest(found, Digest(running.hexdigest()))
        if not taken.seal(user=owner.st_uid, group=owner.st_gid, mode=_VERIFIED_MODE):
            raise InUseError(f"{str(found.path)!r} changed while it was verified", path=found.path)


def _require_digest(found: Found, actual: Digest) -> None:
    expected = Digest.parse_foreign(found.path.parent.name)
    if actual != expected:
        raise DigestMismatchError(
            f"{str(found.path)!r} has the digest {actual}, expected {expected}; it stays as it is, "
            "and is not kept as verified; remove it, and let it be downloaded again",
            expected=expected,
            actual=actual,
        )


def give_name(found: Found, place: Path, target: Path) -> None:
    """Give it its new name, durably, replacing nothing but the empty directories of a new store.

    Raises:
        AlreadyExistsError: Something has the name; nothing changed.
        ConflictError: The new store is not empty.
        StorageError: A system call failed.
    """
    if found.kind is Kind.STORE and target.is_dir():
        remove_empty_directories(target)
        publish(place, target, replace=True)
    else:
        publish(place, target)
