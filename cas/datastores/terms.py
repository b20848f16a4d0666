"""What is to be fetched, and on which terms."""

__all__ = ["FetchPolicy", "Terms", "Wanted"]

from dataclasses import dataclass, field

from cas.datastores.retry import Pace, RetryPolicy
from cas.datastores.room import NO_LEDGER, Room
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.limits import Limits
from cas.model.progress import NO_PROGRESS, Progress

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be fetched.

    Args:
        path: As the source names it.
        digest: Claimed; it names the transfer, and is for the verifier to prove.
        size: Bytes it must have; None if nobody said.
        max_bytes: It must not have more, whoever said what.
    """

    path: str
    digest: Digest
    size: int | None = None
    max_bytes: int = Limits().blob_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """How patient a transfer is.

    Args:
        retry: Attempts and pauses.
        progress_bytes: An attempt that brings less counts as one that brought nothing.
        restarts: How often a transfer may begin anew because the object changed, or because the
            source cannot go on in the middle.
        sync_bytes: So many bytes are synced together; a power cut or kill costs at most twice as
            many, and a chunk.
        sync_seconds: What came is synced after so long a time at the latest.
        stall_bytes: A source that sends less than this
        stall_seconds: in so long a time is given up as stalled.
    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    progress_bytes: int = _MIB
    restarts: int = 5
    sync_bytes: int = 32 * _MIB
    sync_seconds: float = 10.0
    stall_bytes: int = 16 * 1024
    stall_seconds: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What surrounds a transfer.

    Args:
        policy: How patient it is.
        room: Promises space on the file system.
        progress: Is told, under the action ``download`` and the digest.
        cancellation: Stops it.
        pace: Time.
    """

    policy: FetchPolicy = field(default_factory=FetchPolicy)
    room: Room = NO_LEDGER
    progress: Progress = NO_PROGRESS
    cancellation: Cancellation = field(default_factory=Cancellation)
    pace: Pace = field(default_factory=Pace)
