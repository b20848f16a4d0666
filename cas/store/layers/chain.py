"""Which layers of an image already stand as committed snapshots that survive a power cut.

A snapshot that another client committed before the last boot may hold empty files; it is removed
and unpacked again unless something is built on it.
"""

__all__ = ["LayerChain"]

import logging
from collections.abc import Sequence

from cas.errors import InUseError, SnapshotNotFoundError
from cas.model.digest import ChainID
from cas.model.records import SnapshotInfo, SnapshotKind
from cas.store.backing import Backing
from cas.store.layers.durability import LayerDurability
from cas.store.layers.snapshot_removal import remove_committed
from cas.store.leasing import Lease
from cas.store.locking import Locks

_LOGGER = logging.getLogger(__name__)


class LayerChain:
    """Looks for committed snapshots and settles whether they can be relied on.

    Args:
        backing: The store.
        locks: Its locks; nobody who calls in may hold the lock of a chain.
    """

    def __init__(self, backing: Backing, locks: Locks) -> None:
        self._backing = backing
        self._locks = locks
        self._durability = LayerDurability(backing)

    def find_standing(self, chain_ids: Sequence[ChainID], lease: Lease) -> int:
        """Count the layers that need no unpacking.

        The topmost snapshot that exists is pinned by the lease first and looked at again then, so
        that no collection takes it away; its parents live through it.

        Args:
            chain_ids: Of all layers, bottom first.
            lease: Holds what is found.

        Returns:
            The number of layers, from the bottom, whose snapshots stand and are durable.
        """
        count = len(chain_ids)
        while count:
            if self._stat(chain_ids[count - 1]) is None:
                count -= 1
                continue
            count = self._without_hopeless(chain_ids[:count])
            if count and self.pinned(chain_ids[count - 1], lease) is not None:
                return self._vouched(chain_ids[:count], lease)
        return 0

    def is_durable(self, chain_id: ChainID) -> bool:
        """Whether the committed snapshot exists and was synced, with its parents, before."""
        info = self._stat(chain_id)
        return info is not None and self._durability.is_vouched_for(info)

    def pinned(self, chain_id: ChainID, lease: Lease) -> SnapshotInfo | None:
        """Give the committed snapshot, held by the lease, or None when there is none."""
        if self._stat(chain_id) is None:
            return None
        lease.pin_snapshot(str(chain_id))
        return self._stat(chain_id)

    def _stat(self, chain_id: ChainID) -> SnapshotInfo | None:
        try:
            info = self._backing.snapshots.stat(str(chain_id))
        except SnapshotNotFoundError:
            return None
        return info if info.kind is SnapshotKind.COMMITTED else None

    def _without_hopeless(self, chain_ids: Sequence[ChainID]) -> int:
        """Take away snapshots for which nobody can vouch any more; count those that remain."""
        doubtful = self._without_voucher(chain_ids)
        if self._durability.may_be_vouched_for(doubtful):
            return len(chain_ids)
        return self._drop_all(chain_ids, len(doubtful))

    def _vouched(self, chain_ids: Sequence[ChainID], lease: Lease) -> int:
        """See to it that the snapshots, which the lease holds, are durable; count those."""
        doubtful = self._without_voucher(chain_ids)
        if not self._durability.may_be_vouched_for(doubtful):
            return len(chain_ids)  # they are in use: see _drop
        if not doubtful or self._durability.vouch_late(doubtful, lease):
            return len(chain_ids)
        return self._drop_all(chain_ids, len(doubtful))

    def _drop_all(self, chain_ids: Sequence[ChainID], doubtful: int) -> int:
        standing = len(chain_ids)
        lowest = standing - doubtful
        while standing > lowest and self._drop(chain_ids[standing - 1]):
            standing -= 1
        return standing

    def _without_voucher(self, chain_ids: Sequence[ChainID]) -> list[SnapshotInfo]:
        """Collect the snapshots above the topmost one with our label, parents first.

        One with the label had durable parents when it got it.
        """
        found: list[SnapshotInfo] = []
        for chain_id in reversed(chain_ids):
            info = self._stat(chain_id)
            if info is None or self._durability.is_vouched_for(info):
                break
            found.append(info)
        return found[::-1]

    def _drop(self, chain_id: ChainID) -> bool:
        """Remove a doubtful snapshot; False when it has to stay because something stands on it."""
        with self._locks.chain(chain_id):
            info = self._stat(chain_id)
            # Looked at again under the lock: another caller may have unpacked it meanwhile.
            if info is None or self._durability.is_vouched_for(info):
                return info is None
            try:
                remove_committed(self._backing, str(chain_id))
            except InUseError:
                _LOGGER.warning(
                    "snapshot may have lost its files at a power cut and is in use; "
                    "run cas check snapshot=%s",
                    chain_id,
                )
                return False
        _LOGGER.info("snapshot of unknown durability removed snapshot=%s", chain_id)
        return True
