"""Volumes that are not taken back although the others of their group are, told in the error."""

__all__ = ["naming_given_up"]

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cas.errors import CasError
from cas.volumes.snapshot_kind import SnapshotChange

_LOGGER = logging.getLogger(__name__)


@contextmanager
def naming_given_up(changes: Sequence[SnapshotChange]) -> Iterator[None]:
    """Have the error of the block say which volumes were given up (``given_up``), and why."""
    try:
        yield
    except CasError as error:
        reasons = {str(each.name): each.given_up for each in changes if each.given_up}
        for name, reason in reasons.items():
            _LOGGER.info("volume is given up volume=%s reason=%s", name, reason)
        if reasons:
            error.extend("; ".join(reasons.values()), given_up=", ".join(reasons))
        raise
