"""Filters of lists and of prune: ``until=24h``, ``label=k=v``, ``reference=glob``, ``unused=14d``.

Pure. Values of one key are alternatives, different keys must all hold, as docker has it; only
``label!=`` cannot be so: nothing that it names may be there. An unknown key is an error and never
ignored: a filter that silently does nothing removes what it was meant to keep.
"""

__all__ = [
    "BlobFilters",
    "ImageFilters",
    "changed",
    "last_used",
    "parse_blob_filters",
    "parse_image_filters",
]

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from cas.errors import InvalidNameError, UsageError
from cas.model.labels import GC_ROOT, LAST_USED, MEDIA_TYPE
from cas.model.records import BlobInfo, ImageRecord
from cas.model.sizes import parse_instant, parse_size

_Record = TypeVar("_Record")
_Test = Callable[[_Record], bool]
_Maker = Callable[[str, datetime], _Test[_Record]]

_TERM = re.compile(r"([a-z-]+)(!=|>=|<=|=|>|<)(.*)", re.DOTALL)
_HUB = ("docker.io/library/", "docker.io/")
_NAMELESS = re.compile(r"(?:<none>.*|(?:[^/:@]*@)?sha256:[0-9a-f]{64})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Filters(Generic[_Record]):
    """Groups of alternatives that must all hold; without groups everything matches.

    ``texts`` are what they were parsed from, for whoever asks somebody else to filter.
    """

    groups: tuple[tuple[_Test[_Record], ...], ...] = ()
    texts: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any filter."""
        return bool(self.groups)

    def matches(self, record: _Record) -> bool:
        """Whether the record passes all filters."""
        return all(any(test(record) for test in group) for group in self.groups)


@dataclass(frozen=True, slots=True)
class BlobFilters(_Filters[BlobInfo]):
    """Filters on blobs; ``BlobFilters()`` matches all."""


@dataclass(frozen=True, slots=True)
class ImageFilters(_Filters[ImageRecord]):
    """Filters on images; ``ImageFilters()`` matches all."""


def last_used(record: ImageRecord) -> datetime:
    """When an image was last prepared from; its last change where that is not recorded."""
    text = record.labels.get(LAST_USED)
    if text is None:
        return record.updated
    try:
        return parse_instant(text, now=record.updated)
    except InvalidNameError:
        # A label that somebody else wrote must not stop a prune.
        return record.updated


def changed(blob: BlobInfo) -> datetime:
    """When a blob was made or its labels last changed.

    containerd leaves the time of the change out of its lists; then it is that of the making.
    """
    return max(blob.created, blob.updated)


def parse_blob_filters(texts: Iterable[str], *, now: datetime) -> BlobFilters:
    """Parse filters on blobs.

    Keys: ``label=K[=V]``, ``label!=K[=V]``, ``media-type=T`` (glob), ``pinned=true|false``,
    ``until=AGE`` (created before), ``since=AGE`` (created after), ``unused=AGE`` (not changed
    since), ``size>=SIZE`` and ``>``, ``<=``, ``<``.

    Args:
        texts: As typed, one filter each.
        now: The current time, aware; ages count from it.

    Raises:
        UsageError: Unknown key or malformed value.
    """
    listed = tuple(texts)
    return BlobFilters(_parse(listed, now, _BLOB_MAKERS, "blobs"), listed)


def parse_image_filters(texts: Iterable[str], *, now: datetime) -> ImageFilters:
    """Parse filters on images.

    Keys: ``reference=GLOB``, ``label=K[=V]``, ``label!=K[=V]``, ``media-type=T`` (glob, of the
    target), ``until=AGE`` (created before), ``since=AGE`` (created after), ``unused=AGE`` (last
    prepared from before), ``dangling=true|false`` (without a name of its own).

    Args:
        texts: As typed, one filter each.
        now: The current time, aware; ages count from it.

    Raises:
        UsageError: Unknown key or malformed value.
    """
    listed = tuple(texts)
    return ImageFilters(_parse(listed, now, _IMAGE_MAKERS, "images"), listed)


def _parse(
    texts: Iterable[str], now: datetime, makers: Mapping[str, _Maker[_Record]], what: str
) -> tuple[tuple[_Test[_Record], ...], ...]:
    groups: dict[str, list[_Test[_Record]]] = {}
    for text in texts:
        match = _TERM.fullmatch(text)
        maker = None if match is None else makers.get(_key(match))
        if match is None or maker is None:
            raise UsageError(
                f"filter {text[:100]!r} is unknown for {what}; known are "
                + ", ".join(f"{key}VALUE" for key in sorted(makers)),
                filter=text[:100],
            )
        # Every exclusion is a group of its own: none of the labels may be there.
        group = text if match[2] == "!=" else _key(match)
        groups.setdefault(group, []).append(maker(match[3], now))
    return tuple(tuple(tests) for tests in groups.values())


def _key(match: re.Match[str]) -> str:
    return match[1] + match[2]


def _labelled(value: str, _now: datetime) -> Callable[[BlobInfo | ImageRecord], bool]:
    key, separator, wanted = value.partition("=")
    if not key:
        raise UsageError("filter label= needs a key: label=KEY or label=KEY=VALUE")
    if separator:
        return lambda record: record.labels.get(key) == wanted
    return lambda record: key in record.labels


def _not_labelled(value: str, now: datetime) -> Callable[[BlobInfo | ImageRecord], bool]:
    labelled = _labelled(value, now)
    return lambda record: not labelled(record)


def _until(value: str, now: datetime) -> Callable[[BlobInfo | ImageRecord], bool]:
    moment = parse_instant(value, now=now)
    return lambda record: record.created < moment


def _since(value: str, now: datetime) -> Callable[[BlobInfo | ImageRecord], bool]:
    moment = parse_instant(value, now=now)
    return lambda record: record.created >= moment


def _blob_unused(value: str, now: datetime) -> _Test[BlobInfo]:
    moment = parse_instant(value, now=now)
    return lambda blob: changed(blob) < moment


def _image_unused(value: str, now: datetime) -> _Test[ImageRecord]:
    moment = parse_instant(value, now=now)
    return lambda image: last_used(image) < moment


def _truth(value: str, key: str) -> bool:
    truths = {"true": True, "1": True, "false": False, "0": False}
    if value.lower() not in truths:
        raise UsageError(f"filter {key}={value[:100]!r} must be true or false")
    return truths[value.lower()]


def _pinned(value: str, _now: datetime) -> _Test[BlobInfo]:
    wanted = _truth(value, "pinned")
    return lambda blob: bool(blob.labels.get(GC_ROOT)) is wanted


def _dangling(value: str, _now: datetime) -> _Test[ImageRecord]:
    wanted = _truth(value, "dangling")
    return lambda image: (_NAMELESS.fullmatch(image.name) is not None) is wanted


def _reference(pattern: str, _now: datetime) -> _Test[ImageRecord]:
    def matches(image: ImageRecord) -> bool:
        return any(fnmatchcase(name, pattern) for name in _names(image.name))

    return matches


def _names(name: str) -> Iterable[str]:
    """The full name, the short one that people type, and that without its tag."""
    yield name
    familiar = next((name.removeprefix(prefix) for prefix in _HUB if name.startswith(prefix)), name)
    yield familiar
    head, _, tag = familiar.rpartition(":")
    if head and "/" not in tag:
        yield head


def _blob_media_type(pattern: str, _now: datetime) -> _Test[BlobInfo]:
    return lambda blob: fnmatchcase(blob.labels.get(MEDIA_TYPE, ""), pattern)


def _image_media_type(pattern: str, _now: datetime) -> _Test[ImageRecord]:
    return lambda image: fnmatchcase(image.target.media_type, pattern)


def _size(compare: Callable[[int, int], bool]) -> _Maker[BlobInfo]:
    def maker(value: str, _now: datetime) -> _Test[BlobInfo]:
        limit = parse_size(value)
        return lambda blob: compare(blob.size, limit)

    return maker


_BLOB_MAKERS: Mapping[str, _Maker[BlobInfo]] = {
    "label=": _labelled,
    "label!=": _not_labelled,
    "media-type=": _blob_media_type,
    "pinned=": _pinned,
    "since=": _since,
    "size<": _size(int.__lt__),
    "size<=": _size(int.__le__),
    "size=": _size(int.__eq__),
    "size>": _size(int.__gt__),
    "size>=": _size(int.__ge__),
    "until=": _until,
    "unused=": _blob_unused,
}

_IMAGE_MAKERS: Mapping[str, _Maker[ImageRecord]] = {
    "dangling=": _dangling,
    "label=": _labelled,
    "label!=": _not_labelled,
    "media-type=": _image_media_type,
    "reference=": _reference,
    "since=": _since,
    "until=": _until,
    "unused=": _image_unused,
}
