"""Removes blobs, and says what keeps those that stay; part of ``Blobs``.

Unless it is forced nothing is deleted here: blobs lose their pins, and containerd's collector
decides.
"""

__all__ = ["BlobRemoval"]

from collections.abc import Iterator

from cas.errors import BlobNotFoundError, InUseError, LeaseNotFoundError
from cas.model.cancellation import check_operation, while_wanted
from cas.model.digest import Digest
from cas.model.events import EventKind
from cas.model.records import LeaseResource
from cas.store.backing import Backing
from cas.store.content.pins import UNPINNED
from cas.store.image.referrers import find_referrers
from cas.store.locking import Locks

_SHOWN_REFERRERS = 5


class BlobRemoval:
    """Removes groups of blobs; may be shared by threads.

    Args:
        backing: The store.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._locks = Locks(backing.layout)

    def remove(
        self, group: list[Digest], *, force: bool
    ) -> Iterator[tuple[Digest, bool | InUseError]]:
        """Remove blobs with one look at the references.

        Args:
            group: The blobs.
            force: Also what something refers to, which then lacks it.

        Yields:
            Each digest, in order, and whether it was there, or why it stays.
        """
        if force:
            yield from ((digest, self._delete(digest)) for digest in while_wanted(group))
        else:
            yield from self._collect(group)

    def _collect(self, group: list[Digest]) -> Iterator[tuple[Digest, bool | InUseError]]:
        referrers = find_referrers(self._backing, frozenset(group))
        check_operation()
        there = {digest: self._release(digest) for digest in group if digest not in referrers}
        if any(there.values()):
            self._backing.leases.collect_garbage()
        gone: list[str] = []
        try:
            for digest in group:
                if digest in referrers:
                    yield digest, _in_use(digest, referrers[digest])
                    continue
                outcome = there[digest] and self._is_collected(digest)
                if outcome is True:
                    gone.append(str(digest))
                yield digest, outcome
        finally:
            # containerd tells of what is deleted, not of what is collected.
            self._backing.events.publish(EventKind.BLOB_REMOVED, gone)

    def _delete(self, digest: Digest) -> bool:
        with self._locks.blob(digest):
            return self._backing.content.delete(digest)

    def _release(self, digest: Digest) -> bool:
        """Drop a blob's pin; False if there is no blob."""
        # Under the lock no ingest of ours is about to find the blob and count on its pin.
        try:
            with self._locks.blob(digest):
                self._backing.check_writable()
                self._backing.content.update_labels(digest, UNPINNED)
        except BlobNotFoundError:
            return False
        return True

    def _is_collected(self, digest: Digest) -> bool | InUseError:
        """See that a collection took a blob, or say what it was kept for."""
        try:
            self._backing.content.info(digest)
        except BlobNotFoundError:
            return True
        holders = [*self._lease_holders(digest)]
        holders += find_referrers(self._backing, frozenset([digest])).get(digest, [])
        if holders:
            return _in_use(digest, holders)
        # Nothing keeps it, so the collection failed, which containerd does not tell.
        return self._delete(digest)

    def _lease_holders(self, digest: Digest) -> Iterator[str]:
        for lease in self._backing.leases.iter_leases():
            try:
                resources = list(self._backing.leases.iter_resources(lease.id))
            except LeaseNotFoundError:
                continue  # gone since it was listed
            if LeaseResource("content", str(digest)) in resources:
                yield f"lease {lease.id}"


def _in_use(digest: Digest, referrers: list[str]) -> InUseError:
    shown = ", ".join(sorted(set(referrers))[:_SHOWN_REFERRERS])
    return InUseError(
        f"blob {digest} is in use by {shown}; remove that first",
        digest=digest,
        referrers=shown,
    )
