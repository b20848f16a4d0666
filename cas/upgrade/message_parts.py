"""Counts the parts of a serialised protobuf message before anything is made of them.

Two bytes on the wire can be a message that takes a hundred in memory, so a limit on bytes does
not limit memory; one on parts does. Knows the wire format, and which fields hold messages; what
is malformed is left to the real parser.

Source: Protocol Buffers, "Encoding".
"""

__all__ = ["count_parts"]

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor

_VARINT, _FIXED64, _BYTES, _GROUP_START, _GROUP_END, _FIXED32 = range(6)
_SKIPS = {
    _FIXED64: 8,
    _FIXED32: 4,
    # What is in a group counts as if it were beside it: more than there is, and never less.
    _GROUP_START: 0,
    _GROUP_END: 0,
}
_MAX_VARINT_BYTES = 10
_MORE, _SEVEN_BITS = 0x80, 0x7F


def count_parts(data: bytes, kind: Descriptor, limit: int) -> int:
    """Count the messages in a message, at any depth, up to ``limit`` and one more."""
    view = memoryview(data)
    pending = [(view, kind)]
    count = 0
    while pending and count <= limit:
        view, kind = pending.pop()
        for number, content in _iter_fields(view):
            field = kind.fields_by_number.get(number)
            if field is not None and field.message_type is not None:
                pending.append((content, field.message_type))
                count += 1
                if count > limit:
                    break
    return count


def _iter_fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Give the length-delimited fields, until the end or the first thing that makes no sense."""
    position = 0
    while position < len(view):
        key, position = _read_varint(view, position)
        kind = key & 7
        if kind == _BYTES:
            size, position = _read_varint(view, position)
            if size > len(view) - position:
                return
            yield key >> 3, view[position : position + size]
            position += size
        elif kind == _VARINT:
            _, position = _read_varint(view, position)
        elif kind in _SKIPS:
            position += _SKIPS[kind]
        else:
            return


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(view[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & _SEVEN_BITS) << (7 * shift)
        if not byte & _MORE:
            return value, position + shift + 1
    return 0, len(view)
