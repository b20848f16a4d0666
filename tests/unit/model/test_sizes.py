"""Sizes, durations and instants as typed."""

from datetime import UTC, datetime, timedelta

import pytest

from cas.errors import InvalidNameError
from cas.model.sizes import (
    format_size,
    parse_disk_size,
    parse_duration,
    parse_instant,
    parse_size,
)

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("10GB", 10_000_000_000),
        ("10G", 10_000_000_000),
        ("10g", 10_000_000_000),
        ("10GiB", 10 * 1024**3),
        ("10gib", 10 * 1024**3),
        ("1.5k", 1500),
        ("1.5KiB", 1536),
        (" 7 MB ", 7_000_000),
        ("2P", 2 * 10**15),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_size_in_a_known_form_is_bytes(text: str, size: int) -> None:
    """Decimal and binary units, both cases, fractions, whole numbers exact."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "1 000", "10X", "10iB", "1e3", "0x10", "1..5G", "9223372036854775808"]
)
def test_size_in_another_form_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(InvalidNameError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("10B", 10), ("10k", 10_000), ("0", 0), ("1048576", 1048576), ("10GiB", 10 * 1024**3)],
)
def test_disk_size_with_a_unit_or_of_many_bytes_is_taken(text: str, size: int) -> None:
    """Programs give bytes; who gives few of them says that he means it."""
    assert parse_disk_size(text) == size


@pytest.mark.parametrize("text", ["1", "10", "20.5", " 512 ", "1048575"])
def test_disk_size_whose_unit_was_forgotten_is_refused(text: str) -> None:
    """Nobody wants a disk of ten bytes."""
    with pytest.raises(InvalidNameError, match="has no unit"):
        parse_disk_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("30m", 1800), ("24h", 86400), ("7d", 604800), ("2w", 1209600), ("1h30m", 5400)),
        *(("1.5s", 1.5), ("500ms", 0.5), ("0s", 0)),
    ],
)
def test_duration_in_a_known_form_is_a_time_span(text: str, seconds: float) -> None:
    """Units may be joined."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "7", "d", "-1h", "1y", "1h 30m", "9999999999d"])
def test_duration_in_another_form_is_refused(text: str) -> None:
    """A number without unit could be anything."""
    with pytest.raises(InvalidNameError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("24h", NOW - timedelta(days=1)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("1700000000", datetime.fromtimestamp(1_700_000_000, UTC)),
    ],
)
def test_instant_is_an_age_a_time_or_unix_seconds(text: str, moment: datetime) -> None:
    """All three forms give aware UTC."""
    assert parse_instant(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "12:00"])
def test_instant_in_another_form_is_refused(text: str) -> None:
    """The message names the forms."""
    with pytest.raises(InvalidNameError, match="neither an age"):
        parse_instant(text, now=NOW)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1234, "1.23kB"),
        (12_345_678, "12.3MB"),
        (999_499, "999kB"),
        (999_500, "1MB"),
        (1_500_000_000_000, "1.5TB"),
        (-2048, "-2.05kB"),
    ],
)
def test_size_is_shown_with_three_digits_and_a_decimal_unit(size: int, text: str) -> None:
    """Never a number of four digits before the unit."""
    assert format_size(size) == text
