"""Reads tars member by member from anything that can be read forward.

tarfile of the standard library takes extended headers of any length into memory and a tar that
was cut between two members for whole; input from outside needs a reader that does neither. Knows
ustar, pax and GNU long names; sparse members are refused.
"""

__all__ = ["MemberKind", "TarMember", "TarReader", "looks_like_tar"]

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from cas.errors import LimitExceededError, MalformedArchiveError
from cas.model.limits import CHUNK_BYTES, Limits
from cas.store.content.sources import Reader
from cas.store.image.archives.archive import clean_name, read_exactly

_BLOCK = 512
_EXTENDED_LIMIT = 1024 * 1024
"""Bytes of one extended header; real ones have a few hundred."""
_CHECKSUM = slice(148, 156)
_OCTAL = b"01234567"
_BASE_256 = 0x80
_SIZE_DIGITS = 19
_RECORD_DIGITS = 7


class MemberKind(Enum):
    """What a member is, as far as image archives care."""

    FILE = auto()
    LINK = auto()
    OTHER = auto()


_KINDS = {
    b"0": MemberKind.FILE,
    b"\0": MemberKind.FILE,
    b"7": MemberKind.FILE,
    b"1": MemberKind.LINK,
    b"2": MemberKind.LINK,
}
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_SPARSE = b"S"


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member.

    Args:
        name: Clean name.
        kind: What it is.
        size: Bytes of content; 0 for links.
        offset: Where the content begins in the tar.
        target: Clean name inside the archive that a link leads to.
    """

    name: str
    kind: MemberKind
    size: int
    offset: int
    target: str = ""


@dataclass(frozen=True, slots=True)
class _Extended:
    """What headers before a member's own said about it."""

    name: str | None = None
    target: str | None = None
    size: int | None = None


class TarReader:
    """One pass over a tar.

    While a member is the current one, its content can be read with :meth:`read`; what is left of
    it is skipped when the next one is asked for.

    Args:
        stream: The tar, from its start.
        origin: What messages call it.
        limits: How many members there may be.
        skip: Skips bytes faster than reading does; it must notice the end of the input itself.
    """

    def __init__(
        self,
        stream: Reader,
        origin: str,
        limits: Limits,
        *,
        skip: Callable[[int], object] | None = None,
    ) -> None:
        self._stream = stream
        self._origin = origin
        self._limits = limits
        self._skip_fast = skip
        self._position = 0
        self._rest = 0
        self._padding = 0
        self._headers = 0

    def __iter__(self) -> Iterator[TarMember]:
        """Yield the members in order.

        Raises:
            MalformedArchiveError: Not a tar, truncated, or with a member of an unusable kind.
            LimitExceededError: Too many members, or an extended header that is too long.
        """
        while (member := self._next()) is not None:
            self._enter(member.size)
            yield member
            self._leave()

    def read(self, size: int, /) -> bytes:
        """Read from the current member, nothing at its end.

        Raises:
            MalformedArchiveError: The archive ends before the member does.
        """
        wanted = min(size, self._rest)
        if wanted == 0:
            return b""
        chunk = self._stream.read(wanted)
        if not chunk:
            raise self._truncated()
        self._position += len(chunk)
        self._rest -= len(chunk)
        return chunk

    def _enter(self, size: int) -> None:
        self._rest = size
        self._padding = -size % _BLOCK

    def _leave(self) -> None:
        amount = self._rest + self._padding
        if self._skip_fast is not None and amount:
            self._skip_fast(amount)
            self._position += amount
        else:
            while amount:
                chunk = self._stream.read(min(amount, CHUNK_BYTES))
                if not chunk:
                    raise self._truncated()
                self._position += len(chunk)
                amount -= len(chunk)
        self._rest = self._padding = 0

    def _next(self) -> TarMember | None:
        extended = _Extended()
        while (block := self._header_block()) is not None:
            kind = block[156:157]
            size = self._number(block[124:136])
            if kind in (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
                extended = self._extend(extended, kind, self._extended_header(size))
                continue
            if kind == _SPARSE:
                raise self._malformed("a sparse member, which image archives do not have")
            return self._member(block, kind, size, extended)
        return None

    def _header_block(self) -> bytes | None:
        block = read_exactly(self._stream, _BLOCK)
        if not block or block == bytes(_BLOCK):
            return None
        if len(block) < _BLOCK:
            raise self._truncated()
        if not _checksum_fits(block):
            raise self._malformed(
                "something that is no tar header"
                if self._headers
                else "no tar: it is not an image archive"
            )
        self._position += _BLOCK
        self._headers += 1
        if self._headers > self._limits.archive_members:
            raise LimitExceededError(
                f"{self._origin} has more than {self._limits.archive_members} members",
                limit=self._limits.archive_members,
            )
        return block

    def _extended_header(self, size: int) -> bytes:
        if size > _EXTENDED_LIMIT:
            raise LimitExceededError(
                f"{self._origin} has an extended header of {size} bytes, more than the "
                f"{_EXTENDED_LIMIT} allowed",
                limit=_EXTENDED_LIMIT,
                actual=size,
            )
        self._enter(size)
        data = read_exactly(self, size)
        self._leave()
        return data

    def _extend(self, extended: _Extended, kind: bytes, data: bytes) -> _Extended:
        if kind == _LONG_NAME:
            return replace(extended, name=_text(data))
        if kind == _LONG_LINK:
            return replace(extended, target=_text(data))
        if kind == _PAX_GLOBAL:
            return extended  # comments; nobody puts names or sizes there
        records = dict(self._pax_records(data))
        if any(key.startswith("GNU.sparse.") for key in records):
            raise self._malformed("a sparse member, which image archives do not have")
        size = records.get("size")
        if size is not None and not (
            size.isascii() and size.isdecimal() and len(size) <= _SIZE_DIGITS
        ):
            raise self._malformed(f"a member of size {size[:40]!r}")
        return _Extended(
            records.get("path") or extended.name,
            records.get("linkpath") or extended.target,
            extended.size if size is None else int(size),
        )

    def _pax_records(self, data: bytes) -> Iterator[tuple[str, str]]:
        while data.rstrip(b"\0"):
            length_text, _, _ = data.partition(b" ")
            if not length_text.isdigit() or len(length_text) > _RECORD_DIGITS:
                raise self._malformed("an extended header without length")
            length = int(length_text)
            record, data = data[len(length_text) + 1 : length], data[length:]
            key, equals, value = record.partition(b"=")
            if not equals or not value.endswith(b"\n"):
                raise self._malformed("an extended header that is cut off")
            yield _text(key), value[:-1].decode(errors="surrogateescape")

    def _member(self, block: bytes, kind: bytes, size: int, extended: _Extended) -> TarMember:
        name, target = extended.name, extended.target
        if name is None:
            name = _text(block[0:100])
            prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
            name = f"{prefix}/{name}" if prefix else name
        if target is None:
            target = _text(block[157:257])
        if kind in _WITHOUT_DATA:
            size = 0
        elif extended.size is not None:
            size = extended.size
        if size > self._limits.blob_bytes:
            raise LimitExceededError(
                f"{self._origin} has a member {name[:200]!r} of {size} bytes, more than the "
                f"{self._limits.blob_bytes} that a blob may have",
                limit=self._limits.blob_bytes,
                actual=size,
            )
        what = _KINDS.get(kind, MemberKind.OTHER)
        if what is MemberKind.FILE and name.endswith("/"):
            what = MemberKind.OTHER  # how tars before POSIX write a directory
        if kind == b"2" and not target.startswith("/"):
            target = f"{posixpath.dirname(name)}/{target}"
        clean_target = clean_name(target) if what is MemberKind.LINK else ""
        return TarMember(clean_name(name), what, size, self._position, clean_target)

    def _number(self, field: bytes) -> int:
        if field[0] & _BASE_256:  # for sizes that do not fit into octal digits
            if field[0] != _BASE_256:
                raise self._malformed("a member of negative size")
            return int.from_bytes(field[1:], "big")
        digits = field.strip(b" \0")
        if not all(digit in _OCTAL for digit in digits):
            raise self._malformed("a member whose size is no number")
        return int(digits or b"0", 8)

    def _truncated(self) -> MalformedArchiveError:
        return MalformedArchiveError(
            f"{self._origin} is truncated: it ends after {self._position} bytes in the middle of a "
            "member; get it again",
            offset=self._position,
        )

    def _malformed(self, what: str) -> MalformedArchiveError:
        return MalformedArchiveError(
            f"{self._origin} has at byte {self._position} {what}", offset=self._position
        )


def looks_like_tar(block: bytes) -> bool:
    """Whether the first bytes of something are those of a tar with at least one member."""
    return len(block) >= _BLOCK and _checksum_fits(block[:_BLOCK])


def _checksum_fits(block: bytes) -> bool:
    digits = block[_CHECKSUM].strip(b" \0")
    if not digits or not all(digit in _OCTAL for digit in digits):
        return False
    blank = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    signed = sum(byte - 256 if byte & _BASE_256 else byte for byte in blank)
    return int(digits, 8) in (sum(blank), signed)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")
