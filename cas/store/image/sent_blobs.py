"""Blobs that a caller sent for an image that was never loaded; part of recovery."""

__all__ = ["let_go_of_sent_blobs"]

import logging
from contextlib import suppress

from cas.errors import BlobNotFoundError
from cas.model.cancellation import while_wanted
from cas.model.labels import PIN_REASON, PINNED_BY_SENDING
from cas.store.backing import Backing
from cas.store.content.pins import let_go
from cas.store.leasing import LIFETIME

_log = logging.getLogger(__name__)

_FILTER = f'labels."{PIN_REASON}"=="{PINNED_BY_SENDING}"'


def let_go_of_sent_blobs(backing: Backing) -> None:
    """Unpin what was sent, or asked for again, a day ago: whoever sent it was killed. Idempotent.

    Raises:
        InterruptedOperationError: The operation that this belongs to was stopped.
    """
    oldest = backing.clock() - LIFETIME
    for blob in while_wanted(list(backing.content.iter_blobs([_FILTER]))):
        with suppress(BlobNotFoundError):
            # containerd 1.6 tells the time of change to those only who ask for one blob.
            old = backing.content.info(blob.digest).updated < oldest
            if old and let_go(backing, blob.digest, (PINNED_BY_SENDING,)):
                _log.info("blob that was sent for an image let go digest=%s", blob.digest)
