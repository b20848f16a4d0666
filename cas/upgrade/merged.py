"""What a merge of stores tells of each thing; values only."""

__all__ = ["Merged", "MergedKind"]

from dataclasses import dataclass
from enum import StrEnum

from cas.errors import CasError
from cas.upgrade.items import Result


class MergedKind(StrEnum):
    """What came into the store."""

    IMAGE = "image"
    SNAPSHOT = "snapshot"
    BLOB = "blob"
    STORE = "store"
    """Nothing of it is left that the store lacks."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What came into the store, or why it did not.

    Args:
        kind: What it is.
        name: An image's name, a snapshot's key, or the path of a blob or of a store.
        error: Why it failed; it is where it was then.
        reason: Why it was left where it is, although nothing failed; empty if it was not.
        goes: Whether it goes with its store instead, for that reason.
    """

    kind: MergedKind
    name: str
    error: CasError | None = None
    reason: str = ""
    goes: bool = False

    @property
    def result(self) -> Result:
        """What became of it."""
        if self.error is not None:
            return Result.FAILED
        if self.goes:
            return Result.DISCARDED
        return Result.LEFT if self.reason else Result.MOVED

    @property
    def explanation(self) -> str:
        """Why it is not in the store; empty if it is."""
        return self.reason if self.error is None else self.error.message
