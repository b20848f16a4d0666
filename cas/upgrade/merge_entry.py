"""A line of the account of merges: what became of one thing."""

__all__ = ["MergeEntry", "MergeKey", "merge_document"]

from typing import Self

import msgspec

from cas.upgrade.items import Result
from cas.upgrade.journal import as_text
from cas.upgrade.merged import Merged

MergeKey = tuple[str, str, str]
"""Store, kind and name of a thing."""


class MergeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one thing.

    Args:
        time: RFC 3339, when that changed last.
        store: Path of the old store; empty for a verified download.
        kind: See :class:`cas.upgrade.merged.MergedKind`.
        name: An image's name, a snapshot's key, or the path of a blob or of a store.
        result: See :class:`cas.upgrade.items.Result`.
        reason: Reference of the error, if it failed.
        explanation: Why it is not in the newer store, or why it went.
    """

    time: str
    store: str
    kind: str
    name: str
    result: str
    reason: str = ""
    explanation: str = ""

    @property
    def key(self) -> MergeKey:
        """Which thing it is about."""
        return self.store, self.kind, self.name

    @property
    def came_in(self) -> bool:
        """Whether it is in the newer store."""
        return self.result == Result.MOVED.value

    def says(self, other: Self) -> bool:
        """Whether it tells the same of a thing, at whatever time."""
        return msgspec.structs.replace(self, time=other.time) == other

    @classmethod
    def of(cls, merged: Merged, *, store: str, time: str) -> Self:
        """Give the entry about something."""
        return cls(
            time=time,
            store=store,
            kind=merged.kind.value,
            name=as_text(merged.name),
            result=merged.result.value,
            reason="" if merged.error is None else merged.error.reference,
            explanation=as_text(merged.explanation),
        )


def merge_document(entry: MergeEntry) -> dict[str, object]:
    """Give its JSON form."""
    return msgspec.structs.asdict(entry)
