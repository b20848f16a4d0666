"""Messages of bounded size out of any number of entries."""

__all__ = ["batched"]

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

from cas.model.cancellation import while_wanted

_BATCH_BYTES = 256 * 1024
"""Far below the 4 MiB that clients take; an entry may be nearly as large as this."""

_Entry = TypeVar("_Entry", bound=Message)


def batched(entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    """Group entries so that no group is much larger than 256 KiB; no group is empty.

    Raises:
        InterruptedOperationError: The operation that this belongs to was stopped.
    """
    group: list[_Entry] = []
    size = 0
    for entry in while_wanted(entries):
        amount = entry.ByteSize()
        if group and size + amount > _BATCH_BYTES:
            yield group
            group, size = [], 0
        group.append(entry)
        size += amount
    if group:
        yield group
