"""One blob on its way in: what was asked, and the checks that every way shares.

Pure accounting; stores nothing.
"""

__all__ = ["Ingested", "Intake", "Received", "Way"]

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from cas.errors import DigestMismatchError, LimitExceededError, SizeMismatchError
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.progress import Progress

if TYPE_CHECKING:
    from cas.store.content.sources import Source
    from cas.store.leasing import Lease

_ACTION = "ingest"


class Way(StrEnum):
    """How a blob came in."""

    SEED = "seed"
    """As a file of ours that containerd was told of."""
    STREAM = "stream"
    """Through containerd's content service."""
    EXISTED = "existed"
    """Not at all: it was there."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """A blob that is in the store.

    Args:
        digest: Of its bytes.
        size: Bytes.
        way: How it came in.
        created: Whether this call put it there.
    """

    digest: Digest
    size: int
    way: Way
    created: bool


class Received(Protocol):
    """Bytes that were received whole and verified, and that nobody sees yet."""

    @property
    def digest(self) -> Digest:
        """Of the bytes, computed in this process."""

    @property
    def size(self) -> int:
        """Their number."""

    @property
    def way(self) -> Way:
        """How they come in."""

    def publish(self, labels: Mapping[str, str], /) -> bool:
        """Make the blob under its lease; False if containerd says that somebody just did."""


@dataclass(frozen=True, slots=True)
class Intake:
    """What was asked for one blob.

    Args:
        source: Its bytes.
        lease: Keeps what is written.
        expected: Digest that the bytes must have; None takes any.
        size: Number that they must have; None takes any.
        limit: Number that they may have.
        cancel: Stops the work.
        progress: Told of every chunk.
    """

    source: "Source"
    lease: "Lease"
    expected: Digest | None
    size: int | None
    limit: int
    cancel: Cancellation
    progress: Progress

    @property
    def item(self) -> str:
        """What progress calls it."""
        return self.source.name if self.expected is None else str(self.expected)

    @property
    def total(self) -> int | None:
        """How many bytes to make room for, if known."""
        return self.source.size_hint if self.size is None else self.size

    def start(self) -> None:
        """Tell that it begins."""
        self.progress.start(_ACTION, self.item, self.total)

    def finish(self) -> None:
        """Tell that it ended, well or not."""
        self.progress.finish(_ACTION, self.item)

    def check_total(self) -> None:
        """Compare what is known of the size before anything is read.

        Raises:
            SizeMismatchError: The source has another size than was asked for.
            LimitExceededError: It is larger than a blob may be.
        """
        hint = self.source.size_hint
        if hint is not None:
            self._check_limit(hint)
            if self.size is not None and hint != self.size:
                raise self._size_error(hint)

    def account(self, count: int, amount: int) -> None:
        """Look after a chunk of ``amount`` bytes, the last of ``count`` so far.

        Raises:
            InterruptedOperationError: Somebody asked to stop.
            SizeMismatchError: There are more bytes than were asked for.
            LimitExceededError: There are more than a blob may have.
            LeaseNotFoundError: The lease vanished.
        """
        self.cancel.check()
        self._check_limit(count)
        if self.size is not None and count > self.size:
            raise self._size_error(count)
        self.lease.keep_alive()
        self.progress.advance(_ACTION, self.item, amount)

    def verify(self, digest: Digest, size: int) -> None:
        """Compare what came with what was asked for.

        Raises:
            SizeMismatchError: Another size.
            DigestMismatchError: Another digest.
        """
        if self.size is not None and size != self.size:
            raise self._size_error(size)
        if self.expected is not None and digest != self.expected:
            raise DigestMismatchError(
                f"content of {self.source.name} has digest {digest}, expected {self.expected}; "
                "nothing was stored",
                source=self.source.name,
                expected=self.expected,
                actual=digest,
            )

    def _check_limit(self, count: int) -> None:
        if count > self.limit:
            raise LimitExceededError(
                f"content of {self.source.name} has more than the {self.limit} bytes that a blob "
                "may have",
                source=self.source.name,
                limit=self.limit,
            )

    def _size_error(self, actual: int) -> SizeMismatchError:
        return SizeMismatchError(
            f"content of {self.source.name} has {actual} bytes or more, expected {self.size}; "
            "nothing was stored"
            if self.size is not None and actual > self.size
            else f"content of {self.source.name} has {actual} bytes, expected {self.size}; nothing "
            "was stored",
            source=self.source.name,
            expected=self.size,
            actual=actual,
        )
