"""Which references a prune may drop; pure."""

__all__ = ["Scope", "Selection", "parse_selection"]

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from cas.errors import UsageError
from cas.store.filters import (
    BlobFilters,
    ImageFilters,
    parse_blob_filters,
    parse_image_filters,
)


class Scope(StrEnum):
    """Which references a prune may drop; leftovers of dead processes go in every scope."""

    ALL = "all"
    IMAGES = "images"
    BLOBS = "blobs"


@dataclass(frozen=True, slots=True)
class Selection:
    """References that may be dropped.

    Args:
        images: Images that no volume uses and that match; None for no image at all.
        pins: Pinned blobs that match; None for none: a pin was asked for by somebody.
        scope: What it was parsed for.
        texts: What it was parsed from.
    """

    images: ImageFilters | None = field(default_factory=ImageFilters)
    pins: BlobFilters | None = None
    scope: Scope = Scope.ALL
    texts: tuple[str, ...] = ()


def parse_selection(texts: Sequence[str], *, now: datetime, scope: Scope = Scope.ALL) -> Selection:
    """Make a selection of filters as typed.

    Without filters all unused images are selected and no pinned blob. In the scope of all, a
    filter that only images know (``reference``, ``dangling``) selects no blobs, and the other way
    round.

    Args:
        texts: As typed, one filter each.
        now: The current time, aware; ages count from it.
        scope: What is pruned.

    Raises:
        UsageError: Unknown key, malformed value, or filters that nothing can pass together.
    """
    images: ImageFilters | None = None
    pins: BlobFilters | None = None
    if scope is Scope.IMAGES:
        images = parse_image_filters(texts, now=now)
    elif scope is Scope.BLOBS:
        pins = parse_blob_filters(texts, now=now) or None
    elif texts:
        images, pins = _for_all(texts, now)
    else:
        images = ImageFilters()
    return Selection(images=images, pins=pins, scope=scope, texts=tuple(texts))


def _for_all(texts: Sequence[str], now: datetime) -> tuple[ImageFilters | None, BlobFilters | None]:
    images: ImageFilters | None = None
    pins: BlobFilters | None = None
    refusals = []
    try:
        images = parse_image_filters(texts, now=now)
    except UsageError as error:
        refusals.append(error)
    try:
        pins = parse_blob_filters(texts, now=now)
    except UsageError as error:
        refusals.append(error)
    if len(refusals) == 1 or not refusals:
        return images, pins
    if refusals[0].message == refusals[1].message:
        raise refusals[0]
    raise UsageError(f"nothing passes these filters: {refusals[0].message}; {refusals[1].message}")
