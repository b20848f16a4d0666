"""Filters on blobs and images."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest

from cas.errors import UsageError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, LAST_USED, MEDIA_TYPE
from cas.model.media_types import OCI_MANIFEST
from cas.model.records import BlobInfo, ImageRecord
from cas.store.filters import last_used, parse_blob_filters, parse_image_filters

NOW = datetime(2026, 5, 4, tzinfo=UTC)
NEVER = datetime.min.replace(tzinfo=UTC)
"""What containerd's lists say of a change."""


def _blob(
    labels: Mapping[str, str] = MappingProxyType({}),
    *,
    days: int = 0,
    size: int = 100,
    changed: datetime = NEVER,
) -> BlobInfo:
    return BlobInfo(Digest("0" * 64), size, NOW - timedelta(days=days), changed, labels)


def _image(
    name: str = "docker.io/library/a:1",
    labels: Mapping[str, str] = MappingProxyType({}),
    *,
    days: int = 0,
) -> ImageRecord:
    target = Descriptor(OCI_MANIFEST, Digest("0" * 64), 10)
    moment = NOW - timedelta(days=days)
    return ImageRecord(name, target, labels, moment, moment)


def _blob_matches(blob: BlobInfo, *texts: str) -> bool:
    return parse_blob_filters(texts, now=NOW).matches(blob)


def _image_matches(image: ImageRecord, *texts: str) -> bool:
    return parse_image_filters(texts, now=NOW).matches(image)


def test_no_filter_matches_everything_and_is_false() -> None:
    """Callers may ask whether there is any filter."""
    assert parse_blob_filters([], now=NOW).matches(_blob())
    assert not parse_blob_filters([], now=NOW)
    assert parse_blob_filters(["size>1"], now=NOW)


@pytest.mark.parametrize(
    ("text", "blob", "expected"),
    [
        ("until=24h", _blob(days=2), True),
        ("until=24h", _blob(days=0), False),
        ("since=24h", _blob(days=2), False),
        ("since=24h", _blob(days=0), True),
        ("unused=24h", _blob(days=2), True),
        ("unused=24h", _blob(days=2, changed=NOW), False),
        ("unused=24h", _blob(days=0), False),
        ("size>=100", _blob(), True),
        ("size>100", _blob(), False),
        ("size<=100B", _blob(), True),
        ("size<0.1kB", _blob(), False),
        ("size=100", _blob(), True),
        ("label=a", _blob({"a": "1"}), True),
        ("label=a", _blob({"b": "1"}), False),
        ("label=a=1", _blob({"a": "1"}), True),
        ("label=a=1=2", _blob({"a": "1=2"}), True),
        ("label=a=2", _blob({"a": "1"}), False),
        ("label!=a", _blob({"a": "1"}), False),
        ("label!=a=2", _blob({"a": "1"}), True),
        ("pinned=true", _blob({GC_ROOT: "x"}), True),
        ("pinned=false", _blob({GC_ROOT: "x"}), False),
        ("pinned=0", _blob(), True),
        ("media-type=application/*", _blob({MEDIA_TYPE: "application/x"}), True),
        ("media-type=application/x", _blob(), False),
    ],
)
def test_blob_filter_selects_by_its_key(text: str, blob: BlobInfo, expected: bool) -> None:
    """One filter, one answer."""
    assert _blob_matches(blob, text) is expected


@pytest.mark.parametrize(
    ("text", "image", "expected"),
    [
        ("reference=docker.io/library/a:1", _image(), True),
        ("reference=a:1", _image(), True),
        ("reference=a", _image(), True),
        ("reference=a:*", _image(), True),
        ("reference=b*", _image(), False),
        ("reference=host:5000/a", _image("host:5000/a:2"), True),
        ("reference=host", _image("host:5000/a"), False),
        ("dangling=true", _image(), False),
        ("dangling=false", _image(), True),
        ("dangling=true", _image("sha256:" + "0" * 64), True),
        ("dangling=true", _image("overlayfs@sha256:" + "0" * 64), True),
        ("dangling=true", _image("docker.io/library/a@sha256:" + "0" * 64), False),
        ("dangling=true", _image("<none>@x"), True),
        ("unused=24h", _image(days=2), True),
        ("unused=24h", _image(labels={LAST_USED: "2026-05-03T23:00:00Z"}, days=2), False),
        ("unused=24h", _image(labels={LAST_USED: "nonsense"}, days=2), True),
        ("until=24h", _image(labels={LAST_USED: "2026-05-03T23:00:00Z"}, days=2), True),
        ("media-type=*manifest*", _image(), True),
    ],
)
def test_image_filter_selects_by_its_key(text: str, image: ImageRecord, expected: bool) -> None:
    """One filter, one answer."""
    assert _image_matches(image, text) is expected


def test_values_of_one_key_are_alternatives_and_keys_must_all_hold() -> None:
    """As docker has it."""
    either = ("label=a", "label=b")
    assert _blob_matches(_blob({"a": "1"}), *either)
    assert _blob_matches(_blob({"b": "1"}), *either)
    assert not _blob_matches(_blob({"c": "1"}), *either)
    assert not _blob_matches(_blob({"a": "1"}), *either, "size>1kB")


def test_size_limits_of_both_sides_make_a_range() -> None:
    """The comparison belongs to the key."""
    texts = ("size>=50", "size<200")
    assert [_blob_matches(_blob(size=size), *texts) for size in (49, 50, 199, 200)] == [
        False,
        True,
        True,
        False,
    ]


def test_exclusions_all_hold() -> None:
    """None of the labels named by label!= may be there."""
    texts = ("label!=a", "label!=b")
    assert _blob_matches(_blob({"c": "1"}), *texts)
    assert not _blob_matches(_blob({"a": "1"}), *texts)
    assert not _blob_matches(_blob({"b": "1"}), *texts)


@pytest.mark.parametrize(
    "text",
    [
        *("", "reference", "reference=x", "untill=24h", "until>24h", "size=x", "pinned=maybe"),
        *("until=yesterday", "label=", "Label=x", "size!=3"),
    ],
)
def test_unknown_or_malformed_blob_filter_is_a_usage_error(text: str) -> None:
    """A filter that silently does nothing would remove what it was meant to keep."""
    with pytest.raises(UsageError):
        parse_blob_filters([text], now=NOW)


@pytest.mark.parametrize("text", ["size>1", "pinned=true", "dangling=maybe", "unused=x"])
def test_unknown_or_malformed_image_filter_is_a_usage_error(text: str) -> None:
    """Keys that only blobs know are not ignored for images."""
    with pytest.raises(UsageError):
        parse_image_filters([text], now=NOW)


def test_last_use_is_the_label_and_else_the_last_change() -> None:
    """An unreadable label counts as none."""
    assert last_used(_image(days=3)) == NOW - timedelta(days=3)
    labelled = _image(labels={LAST_USED: "2026-05-03T23:00:00Z"}, days=3)
    assert last_used(labelled) == datetime(2026, 5, 3, 23, tzinfo=UTC)
    assert last_used(_image(labels={LAST_USED: "?"}, days=3)) == NOW - timedelta(days=3)
