"""Sizes, durations and instants as people type them, and sizes as tables show them.

Pure values of the model layer. JSON never passes through here: there sizes are plain bytes.
"""

__all__ = ["format_size", "parse_disk_size", "parse_duration", "parse_instant", "parse_size"]

import re
from datetime import UTC, datetime, timedelta

from cas.errors import InvalidNameError

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?)b?", re.ASCII | re.IGNORECASE)
_EXPONENTS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LARGEST_SIZE = 2**63 - 1
_SMALLEST_BARE_DISK = 1024 * 1024

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LARGEST_DURATION_SECONDS = 1000 * 365 * 86400.0

_UNIX = re.compile(r"[0-9]{1,11}(?:\.[0-9]+)?", re.ASCII)
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def parse_size(text: str) -> int:
    """Parse ``10GB`` (decimal), ``10GiB`` (binary), ``10g``, ``1.5G`` or plain bytes.

    Returns:
        Bytes; a fraction of a byte is dropped.

    Raises:
        InvalidNameError: Not of this form, or more than 2**63 - 1 bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise InvalidNameError(
            f"size {text[:100]!r} is not a number with a unit, for example 10GB, 512MiB or 4096",
            value=text[:100],
        )
    factor = (1024 if match[3] else 1000) ** _EXPONENTS[match[2].lower()]
    # Whole numbers stay exact: a float has no room for every byte count.
    size = int(match[1]) * factor if match[1].isdigit() else int(float(match[1]) * factor)
    if size > _LARGEST_SIZE:
        raise InvalidNameError(
            f"size {text[:100]!r} is more than {_LARGEST_SIZE} bytes", value=text[:100]
        )
    return size


def parse_disk_size(text: str) -> int:
    """Parse as :func:`parse_size`; a small number of bytes has to say that it is one.

    Raises:
        InvalidNameError: As there; or it is a number below 1 MiB whose unit was forgotten.
    """
    size = parse_size(text)
    if 0 < size < _SMALLEST_BARE_DISK and text.strip()[-1].isdigit():
        raise InvalidNameError(
            f"size {text[:100]!r} has no unit and would be {size} bytes; write the unit, as in "
            f"10GiB, or {size}B if bytes are meant",
            value=text[:100],
        )
    return size


def parse_duration(text: str) -> timedelta:
    """Parse ``30m``, ``24h``, ``7d``, ``2w``, ``1h30m``, ``90s`` or ``500ms``.

    Raises:
        InvalidNameError: Not of this form, or longer than 1000 years.
    """
    stripped = text.strip()
    if _DURATION.fullmatch(stripped) is None:
        raise InvalidNameError(
            f"duration {text[:100]!r} is not a number with a unit, for example 30m, 24h or 7d",
            value=text[:100],
        )
    seconds = sum(
        float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(stripped)
    )
    if seconds > _LARGEST_DURATION_SECONDS:
        raise InvalidNameError(
            f"duration {text[:100]!r} is longer than 1000 years", value=text[:100]
        )
    return timedelta(seconds=seconds)


def parse_instant(text: str, *, now: datetime) -> datetime:
    """Parse an age (``24h`` is 24 hours before ``now``), an RFC 3339 time or Unix seconds.

    Args:
        text: As typed. A time without a zone is taken as UTC.
        now: The current time, aware.

    Returns:
        An aware UTC time.

    Raises:
        InvalidNameError: It is none of the three.
    """
    stripped = text.strip()
    if _DURATION.fullmatch(stripped):
        return now - parse_duration(stripped)
    if _UNIX.fullmatch(stripped):
        return datetime.fromtimestamp(float(stripped), UTC)
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError as error:
        raise InvalidNameError(
            f"time {text[:100]!r} is neither an age (24h, 7d) nor an RFC 3339 time "
            "(2026-01-31T12:00:00Z) nor Unix seconds",
            value=text[:100],
        ) from error
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)


def format_size(size: int) -> str:
    """Show bytes with three digits and a decimal unit, as docker does: ``1.25GB``, ``12B``.

    Args:
        size: Bytes; may be negative.
    """
    sign, value, unit = ("-" if size < 0 else ""), float(abs(size)), 0
    # 999.95 would be shown as 1000 of the smaller unit.
    while value >= (1000 if unit == 0 else 999.5) and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    digits = f"{value:.0f}" if unit == 0 else f"{value:.3g}"
    return f"{sign}{digits}{_UNITS[unit]}"
