"""Makes the files of layers durable, which containerd does not do for its snapshots.

A committed snapshot whose files were not synced turns into empty files at a power cut while its
record stays, and no client ever looks again. So a layer is synced before its commit, and the
commit carries the label ``cas.lfedge.org/durable``. A snapshot without that label was committed
by another client: while the kernel that wrote it still runs, its files are in memory or on disk
and can be synced late; after a reboot nothing vouches for them.
"""

__all__ = ["LayerDurability", "upper_directory"]

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cas.errors import DaemonVersionError
from cas.fsops.durable import sync_file_system
from cas.fsops.processes import boot_time
from cas.model.digest import ChainID
from cas.model.labels import DURABLE
from cas.model.records import Mount, SnapshotInfo
from cas.store.backing import Backing
from cas.store.layers.extraction_key import extraction_key
from cas.store.leasing import Lease

_LOGGER = logging.getLogger(__name__)


def upper_directory(mounts: Sequence[Mount]) -> Path | None:
    """Tell which directory of this process's view receives what is written through ``mounts``.

    Args:
        mounts: What the snapshotter gave for an active snapshot.

    Returns:
        None when the snapshotter is of another kind, or runs where we cannot see its files.
    """
    if len(mounts) != 1:
        return None
    mount = mounts[0]
    source = mount.option("upperdir") if mount.type == "overlay" else mount.source
    if mount.type not in {"overlay", "bind"} or not source:
        return None
    path = Path(source)
    return path if path.is_absolute() and path.is_dir() else None


def _lower_directory(mounts: Sequence[Mount]) -> Path | None:
    """Like :func:`upper_directory` for a view: the directory of the topmost layer."""
    if len(mounts) != 1:
        return None
    mount = mounts[0]
    lower = mount.option("lowerdir")
    source = lower.split(":")[0] if lower else mount.source
    return Path(source) if source.startswith("/") and Path(source).is_dir() else None


class LayerDurability:
    """Syncs what was unpacked and vouches for it by label.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing

    def now(self) -> str:
        """Value of the label for a snapshot that is committed next."""
        return self._backing.clock().isoformat(timespec="seconds")

    def require_way(self, upper: Path | None) -> bool:
        """Choose who syncs a layer.

        Args:
            upper: The layer's directory if it can be reached.

        Returns:
            True when the daemon must be told to sync, False when we do it.

        Raises:
            DaemonVersionError: Neither is possible, so the layer could be lost at a power cut.
        """
        if upper is not None:
            return False
        if self._backing.daemon_syncs_layers:
            return True
        raise DaemonVersionError(
            "layers cannot be made durable: containerd's directory is not reachable from here and "
            "containerd before 1.7.14 does not sync layers itself; upgrade containerd, or run "
            "where its root directory is visible under the same path"
        )

    def sync(self, upper: Path) -> None:
        """Make everything below the layer's directory durable.

        Raises:
            StorageError: The kernel could not write; the layer must not be committed.
        """
        sync_file_system(upper)

    def is_vouched_for(self, info: SnapshotInfo) -> bool:
        """Whether the snapshot was synced before it was committed."""
        return bool(info.labels.get(DURABLE))

    def may_be_vouched_for(self, infos: Sequence[SnapshotInfo]) -> bool:
        """Whether all these snapshots were written while the kernel that runs now ran."""
        booted, now = boot_time(), self._backing.clock()
        # A creation time in the future means that the clock was set back: it proves nothing.
        return all(booted <= info.created <= now for info in infos)

    def vouch_late(self, infos: Sequence[SnapshotInfo], lease: Lease) -> bool:
        """Sync committed snapshots of another client and label them, parents first.

        Args:
            infos: Snapshots without our label for which :meth:`may_be_vouched_for` holds, parents
                first.
            lease: Holds them.

        Returns:
            False when their files cannot be reached; nothing is changed then.
        """
        with self._directory_of(infos[-1].name, lease) as directory:
            if directory is None:
                return False
            sync_file_system(directory)
        for info in infos:
            self._backing.snapshots.update_labels(info.name, {DURABLE: self.now()})
            _LOGGER.info("snapshot of another client synced snapshot=%s", info.name)
        return True

    @contextmanager
    def _directory_of(self, name: str, lease: Lease) -> Iterator[Path | None]:
        """Look at a committed snapshot through a view, for its files' place on disk."""
        key = extraction_key(ChainID.parse(name))
        mounts = self._backing.snapshots.view(key, name, lease.id, {})
        try:
            yield _lower_directory(mounts)
        finally:
            self._backing.snapshots.remove(key)
