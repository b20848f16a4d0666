"""One object on its way into one file: attempts, resumption, limits.

Used by :mod:`cas.datastores.fetch`, which owns names, locks and what is left after a failure.
"""

__all__ = ["Transfer"]

from collections.abc import Callable

from cas.datastores.checkpoint import Checkpoints
from cas.datastores.port import Download, RemoteObject, Source
from cas.datastores.retry import retrying
from cas.datastores.room import Allotment
from cas.datastores.terms import Terms, Wanted
from cas.errors import (
    CasError,
    LimitExceededError,
    NoSpaceError,
    ResumeUnsupportedError,
    SizeMismatchError,
    SourceChangedError,
    SourceStalledError,
    SourceUnavailableError,
)
from cas.fsops.inode import StagedInode

_ACTION = "download"
_NOTE_BYTES = 128 * 1024
"""More than a note and the blocks of its directory take on any file system."""
_MOST_TAILS = 2
"""So many times ``sync_bytes`` may have come beyond what is durable; then the disk is waited for.
"""


class Transfer:
    """The attempts to fetch one object.

    Args:
        source: Where it is.
        wanted: What it is.
        terms: Policy and surroundings.
        file: Holds the bytes that are there already, all of them durable.
        remote: The object that these are of.
        note: Remembers durably that so many bytes of the object are durable.
    """

    def __init__(
        self,
        source: Source,
        wanted: Wanted,
        terms: Terms,
        *,
        file: StagedInode,
        remote: RemoteObject,
        note: Callable[[RemoteObject, int], None],
    ) -> None:
        self._source = source
        self._wanted = wanted
        self._terms = terms
        self._file = file
        self._remote = remote
        self._note = note
        self._allotment = Allotment(terms.room, f"download of {wanted.digest}")
        self._checkpoints = Checkpoints(file, lambda size: note(self._remote, size))
        self._rate = _Rate(terms)
        self._failures = 0
        self._restarts = 0
        self._noted = file.size
        self.received = 0
        """Bytes that came from the source."""

    def run(self) -> None:
        """Fetch until the file holds the whole object, durably.

        Raises as :func:`cas.datastores.fetch.fetch`.
        """
        terms, item = self._terms, str(self._wanted.digest)
        loop = retrying(
            terms.policy.retry,
            terms.pace,
            cancellation=terms.cancellation,
            failures=lambda: self._failures,
        )
        terms.progress.start(_ACTION, item, self._expected())
        try:
            terms.progress.advance(_ACTION, item, self._file.size)
            with self._checkpoints, self._allotment:
                if self._wanted.size is not None:
                    self._allotment.promise(self._wanted.size - self._file.size)
                loop(self._attempt)
                self._checkpoints.wait()
            self._file.sync()
        finally:
            terms.progress.finish(_ACTION, item)

    def keep(self) -> bool:
        """Make what came so far durable and note it; False if it could not be resumed anyway.

        Raises:
            NoSpaceError: No room for the note; an older one still holds.
            StorageError: The file cannot be trusted.
        """
        if self._remote.validator is None or self._file.size == 0:
            return False
        try:
            self._file.sync()
            self._note(self._remote, self._file.size)
        except NoSpaceError:
            # The last bytes make room for the note that saves the others.
            self._file.truncate(max(0, self._file.size - _NOTE_BYTES))
            self._file.sync()
            self._note(self._remote, self._file.size)
        return True

    def _attempt(self) -> None:
        self._terms.cancellation.check()
        before = self._file.size
        try:
            self._read()
        except CasError as error:
            self._terms.cancellation.check()  # which may be why it failed
            self._judge(error, before)
            raise

    def _judge(self, error: CasError, before: int) -> None:
        """Count a failure, or begin to count anew because the attempt brought something."""
        policy = self._terms.policy
        if isinstance(error, SourceChangedError | ResumeUnsupportedError):
            self._begin_anew()
        gained = self._file.size - before
        self._failures = 1 if gained >= policy.progress_bytes else self._failures + 1
        if self._restarts > policy.restarts:
            self._failures = policy.retry.attempts

    def _begin_anew(self) -> None:
        self._restarts += 1
        self._checkpoints.wait()
        terms, item = self._terms, str(self._wanted.digest)
        terms.progress.finish(_ACTION, item)
        terms.progress.start(_ACTION, item, self._wanted.size)
        self._remote = RemoteObject(None, None)
        self._file.restart()
        self._noted = self._checkpoints.durable = 0
        if self._wanted.size is not None:
            self._allotment.promise(self._wanted.size)

    def _read(self) -> None:
        if self._file.size and self._file.size == self._expected():
            return  # only the last step was missing
        if self._file.size and self._remote.validator is None:
            self._begin_anew()
        offset = self._file.size
        with (
            self._source.open(
                self._wanted.path, offset=offset, validator=self._remote.validator
            ) as download,
            self._terms.cancellation.notifying(download.abort),
        ):
            self._accept(download.remote, offset)
            self._receive(download)
        self._require_all()

    def _accept(self, remote: RemoteObject, offset: int) -> None:
        """Take or refuse what a source offers, before the first byte of it is read."""
        if offset:
            if None not in (remote.size, self._remote.size) and remote.size != self._remote.size:
                raise SourceChangedError(
                    f"{self._what()}: the object has {remote.size} bytes now instead of "
                    f"{self._remote.size}"
                )
            return
        self._remote = remote
        size, wanted = remote.size, self._wanted
        if size is None:
            return
        if wanted.size is not None and size != wanted.size:
            raise self._size_mismatch(size, wanted.size)
        self._require_allowed(size)
        if wanted.size is None:
            self._allotment.promise(size)

    def _receive(self, download: Download) -> None:
        item = str(self._wanted.digest)
        self._rate.restart()
        for chunk in download.chunks:
            self._terms.cancellation.check()
            self._require_fitting(self._file.size + len(chunk))
            self._allotment.use(len(chunk))
            self._file.write(chunk)
            self.received += len(chunk)
            self._terms.progress.advance(_ACTION, item, len(chunk))
            self._checkpoint()
            if self._rate.is_stalled(len(chunk)):
                raise self._stalled()
        self._terms.cancellation.check()  # an aborted read may end as if all had come

    def _checkpoint(self) -> None:
        if self._remote.validator is None:
            return
        most = self._terms.policy.sync_bytes
        if self._file.size - self._checkpoints.durable >= _MOST_TAILS * most:
            self._checkpoints.wait()
            self._rate.restart()  # the disk was slow, not the source
        if self._file.size - self._noted < most and not self._rate.is_sync_due():
            return
        if self._checkpoints.begin():
            self._noted = self._file.size
            self._rate.synced()

    def _require_fitting(self, size: int) -> None:
        expected = self._expected()
        if expected is not None and size > expected:
            raise self._size_mismatch(size, expected)
        self._require_allowed(size)

    def _require_allowed(self, size: int) -> None:
        if size > self._wanted.max_bytes:
            raise LimitExceededError(
                f"{self._what()}: {size} bytes or more, above the {self._wanted.max_bytes} allowed",
                limit=self._wanted.max_bytes,
                actual=size,
            )

    def _require_all(self) -> None:
        expected = self._expected()
        if expected is not None and self._file.size < expected:
            raise SourceUnavailableError(
                f"{self._what()}: the source ended after {self._file.size} of {expected} bytes"
            )

    def _expected(self) -> int | None:
        return self._wanted.size if self._remote.size is None else self._remote.size

    def _size_mismatch(self, actual: int, expected: int) -> SizeMismatchError:
        hint = ""
        if self._remote.media_type == "text/html":
            hint = "; it is an HTML page, so a login page or captive portal may have answered"
        return SizeMismatchError(
            f"{self._what()}: {actual} bytes or more came where {expected} were expected{hint}",
            digest=self._wanted.digest,
            expected=expected,
            actual=actual,
        )

    def _stalled(self) -> SourceStalledError:
        policy = self._terms.policy
        return SourceStalledError(
            f"{self._what()}: less than {policy.stall_bytes} bytes came in "
            f"{policy.stall_seconds:.0f} seconds"
        )

    def _what(self) -> str:
        return f"{self._source.name}: {self._wanted.path.partition('?')[0]}"


class _Rate:
    """Whether bytes come fast enough, and whether it is time to sync them."""

    def __init__(self, terms: Terms) -> None:
        self._policy = terms.policy
        self._now = terms.pace.monotonic
        self._since = self._synced = self._now()
        self._bytes = 0

    def restart(self) -> None:
        self._since, self._bytes = self._now(), 0

    def is_stalled(self, amount: int) -> bool:
        self._bytes += amount
        if self._now() - self._since < self._policy.stall_seconds:
            return False
        stalled = self._bytes < self._policy.stall_bytes
        self.restart()
        return stalled

    def is_sync_due(self) -> bool:
        return self._now() - self._synced >= self._policy.sync_seconds

    def synced(self) -> None:
        self._synced = self._now()
