"""Who refers to a blob directly; looked up anew each time, in one pass over each list.

Reachability over several steps is the business of :mod:`cas.store.account.graph`; to refuse a
removal the last step is enough.
"""

__all__ = ["find_referrers"]

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress

from cas.errors import LeaseNotFoundError
from cas.model.cancellation import while_wanted
from cas.model.digest import Digest
from cas.model.labels import GC_REF_CONTENT
from cas.store.backing import Backing


def find_referrers(backing: Backing, digests: AbstractSet[Digest]) -> dict[Digest, list[str]]:
    """Say who refers to each of the blobs; blobs that nobody refers to are left out.

    Memory: one short text per reference to the wanted blobs.

    Raises:
        InterruptedOperationError: The operation that this belongs to was stopped.
    """
    wanted = {str(digest): digest for digest in digests}
    found: dict[Digest, list[str]] = {}
    for target, referrer in while_wanted(_references(backing)):
        if target in wanted:
            found.setdefault(wanted[target], []).append(referrer)
    return found


def _references(backing: Backing) -> Iterator[tuple[str, str]]:
    """Yield every reference to content: its target's digest and a name for who refers."""
    for image in backing.images.iter_images():
        yield str(image.target.digest), f"image {image.name!r}"
        yield from _labelled(image.labels, f"image {image.name!r}")
    for volume in backing.volumes():
        for digest in (volume.root_digest, volume.manifest_digest):
            if digest is not None:
                yield str(digest), f"volume {volume.name}"
    for lease in while_wanted(backing.leases.iter_leases()):
        # A lease that ended since it was listed holds nothing.
        with suppress(LeaseNotFoundError):
            for resource in backing.leases.iter_resources(lease.id):
                if resource.type == "content":
                    yield resource.id, f"lease {lease.id}"
    for snapshot in backing.snapshots.iter_snapshots():
        yield from _labelled(snapshot.labels, f"snapshot {snapshot.name!r}")
    for blob in backing.content.iter_blobs():
        yield from _labelled(blob.labels, f"blob {blob.digest}")


def _labelled(labels: Mapping[str, str], referrer: str) -> Iterator[tuple[str, str]]:
    for key, value in labels.items():
        if key.startswith(GC_REF_CONTENT):
            yield value, referrer
