"""Names of the labels that the store reads and writes."""

__all__ = [
    "DOWNLOADED",
    "DURABLE",
    "GC_EXPIRE",
    "GC_REF_CONTENT",
    "GC_REF_SNAPSHOT",
    "GC_ROOT",
    "KEEP",
    "LAST_USED",
    "LEASE_BOOT_ID",
    "LEASE_PID",
    "LEASE_PID_NAMESPACE",
    "LEASE_PURPOSE",
    "LEASE_RESUMES",
    "LEASE_START_TIME",
    "MAX_LABEL_BYTES",
    "MEDIA_TYPE",
    "MERGED_FROM",
    "NOT_FETCHED",
    "OURS",
    "PINNED_BY_MOVE",
    "PINNED_BY_SENDING",
    "PIN_OWNER",
    "PIN_REASON",
    "SIGNATURE",
    "SIGNED_BY",
    "SIGNED_BY_KEY",
    "SNAPSHOT_REF",
    "STORE_ID",
    "UNCOMPRESSED",
    "UNFINISHED",
    "VOLUME",
    "VOLUMES_DIRECTORY",
    "check_free_labels",
]

from collections.abc import Iterable

from cas.errors import InvalidNameError

OURS = "cas.lfedge.org/"

GC_ROOT = "containerd.io/gc.root"
GC_EXPIRE = "containerd.io/gc.expire"
GC_REF_CONTENT = "containerd.io/gc.ref.content"
"""Prefix; ``.config``, ``.m.<i>``, ``.l.<i>`` or ``.<i>`` follows."""
GC_REF_SNAPSHOT = "containerd.io/gc.ref.snapshot"
"""Prefix; ``.<snapshotter>`` follows."""
SNAPSHOT_REF = "containerd.io/snapshot.ref"
UNCOMPRESSED = "containerd.io/uncompressed"
"""On a layer blob: its diff ID."""

DOWNLOADED = "eve-downloaded"
"""``true`` on images and manifests, for garbage collectors that share the namespace."""

MEDIA_TYPE = f"{OURS}media-type"
"""On every blob whose media type is known: containerd itself keeps none."""
NOT_FETCHED = f"{OURS}not-fetched"
"""Prefix on an index or manifest; ``.<i>`` follows: digest of child i, absent on purpose."""
PIN_OWNER = f"{OURS}pin-owner"
PIN_REASON = f"{OURS}pin-reason"
PINNED_BY_MOVE = "moved in for an image"
"""Reason of the pin of a file that was taken over, until the name of its image is there."""
PINNED_BY_SENDING = "sent in for an image"
"""The same of bytes that a caller sent, who can send them again."""
KEEP = f"{OURS}keep"
"""On an image, with any value: prune leaves it."""
LAST_USED = f"{OURS}last-used"
"""On an image: RFC 3339 time of the last prepare from it, to the hour."""
SIGNATURE = f"{OURS}signature"
"""On a pulled image: the kind of signature that was checked, such as ``cosign``."""
SIGNED_BY = f"{OURS}signed-by"
"""Beside :data:`SIGNATURE`: the policy's name of the key that made it."""
SIGNED_BY_KEY = f"{OURS}signed-by-key"
"""On a blob beside :data:`SIGNED_BY`: fingerprint of that key, for names outlive their keys."""
STORE_ID = f"{OURS}store-id"
"""On the namespace and on the sentinel blob."""
VOLUME = f"{OURS}volume"
"""On an active snapshot: the volume it belongs to."""
VOLUMES_DIRECTORY = f"{OURS}volumes-directory"
"""Beside :data:`VOLUME`: where the volume is, so that nobody who looks at another persist
directory through the same containerd takes the snapshot for a leftover."""
MERGED_FROM = f"{OURS}merged-from"
"""On an active snapshot that was copied from another store: RFC 3339 time at which the original
was made, which tells it from one that older software makes again under the same key."""
UNFINISHED = f"{OURS}unfinished"
"""On an active snapshot that is being copied from another store: it is not whole yet."""
DURABLE = f"{OURS}durable"
"""On a committed snapshot: RFC 3339 time at which its files were synced, before the commit."""

LEASE_BOOT_ID = f"{OURS}boot-id"
LEASE_PID = f"{OURS}pid"
LEASE_PID_NAMESPACE = f"{OURS}pid-namespace"
LEASE_START_TIME = f"{OURS}start-time"
LEASE_PURPOSE = f"{OURS}purpose"
LEASE_RESUMES = f"{OURS}resumes"
"""On a lease of work that is gone on with after an interruption: what names that work."""

MAX_LABEL_BYTES = 4096
"""containerd's limit for key and value of one label together."""

_GUARDED = ("containerd.io/", OURS)


def check_free_labels(keys: Iterable[str]) -> None:
    """Return if everybody may set and remove labels of these keys.

    Raises:
        InvalidNameError: A key is empty or cannot be printed, or its label is containerd's or the
            store's own: what is collected, and what is told of an object, depends on those.
    """
    for key in keys:
        if not key or not key.isprintable():
            raise InvalidNameError(
                f"label key {key[:100]!r} is not printable text", value=key[:100]
            )
        if key.startswith(_GUARDED):
            raise InvalidNameError(
                f"label {key[:100]!r} is not yours to change: the prefixes {_GUARDED[0]!r} and "
                f"{_GUARDED[1]!r} are containerd's and the store's",
                value=key[:100],
            )
