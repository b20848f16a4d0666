"""Does what is planned for one thing, so that a kill at any moment loses nothing.

A rename is one step. A copy is made beside its target under a temporary name, synced, read back
and compared; then the journal is told which inode is about to get the name; then it gets it; only
then the original goes. Whatever a kill leaves is recognised by the next run: a temporary name is
removed, a target with the noted inode is its own, and every other target is somebody else's.
"""

__all__ = ["Conversion"]

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cas.errors import (
    CasError,
    CopyMismatchError,
    InterruptedOperationError,
    NoSpaceError,
    SourceChangedError,
    StorageError,
)
from cas.fsops.durable import rename_aside
from cas.fsops.inode_flags import remove_barred
from cas.fsops.replica import Replica, content_digest, replicate
from cas.fsops.translation import translated
from cas.fsops.trees import allocated_bytes, free_bytes, remove_tree
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.progress import Progress
from cas.store.kept_downloads import keep
from cas.upgrade.completion import complete, give_name
from cas.upgrade.intents import Intents
from cas.upgrade.items import Action, Kind, Outcome, Planned, Reason, Result
from cas.upgrade.journal import Entry
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.readiness import require_ready
from cas.upgrade.scan import identity_of

_Made = TypeVar("_Made")

_log = logging.getLogger(__name__)


class Conversion:
    """Converts one thing after the other.

    Args:
        intents: Tells the journal.
        layout: Of the device.
        min_free_bytes: Room that a copy leaves.
        progress: Told of what is copied.
        cancel: Ends it between two chunks.
    """

    def __init__(
        self,
        intents: Intents,
        *,
        layout: Layout,
        min_free_bytes: int,
        progress: Progress,
        cancel: Cancellation,
    ) -> None:
        self._intents = intents
        self._layout = layout
        self._min_free_bytes = min_free_bytes
        self._progress = progress
        self._cancel = cancel

    def convert(self, planned: Planned) -> Outcome:
        """Do what is planned; a failure is an outcome and leaves the original where it was.

        Raises:
            InterruptedOperationError: ``cancel`` was set; what was begun is undone.
        """
        self._cancel.check()
        try:
            return self._act(_unless_there(planned))
        except InterruptedOperationError:
            raise
        except CasError as error:
            _log.error("conversion failed path=%s error=%s", planned.found.path, error)
            return Outcome(planned, Result.FAILED, error)

    def discard(self, planned: Planned) -> Outcome:
        """Remove something for good, durably.

        Raises:
            NoSpaceError: It cannot be noted; nothing is removed then.
            InUseError: Something is mounted in it.
            StorageError: A system call failed.
        """
        entry = self._intents.intend(replace(planned, target=None))
        if planned.found.kind is Kind.VERIFIED and planned.target is not None:
            keep(self._layout, Digest(planned.target.name))
        self._remove_for_good(planned)
        self._intents.done(entry)
        _log.info("discarded path=%s reason=%s", planned.found.path, planned.reason)
        return Outcome(planned, Result.DISCARDED)

    def _act(self, planned: Planned) -> Outcome:
        match planned.action:
            case Action.RENAME:
                return self._rename(planned)
            case Action.COPY:
                return self._copy(planned)
            case Action.FINISH:
                entry = self._intents.find(planned)
                self._remove_original(planned, entry)
                before, after = entry.digest_before, entry.digest_after
                return Outcome(planned, Result.MOVED, digest_before=before, digest_after=after)
            case Action.DISCARD:
                return self.discard(planned)
            case Action.LEAVE:
                return Outcome(planned, Result.LEFT)

    def _rename(self, planned: Planned) -> Outcome:
        source, target = planned.found.path, _target(planned)
        require_ready(planned.found, target)
        self._complete(planned, source, target)
        with translated("inspect", source):
            status = source.lstat()
        found = replace(planned.found, identity=identity_of(status))
        entry = self._intents.intend(replace(planned, found=found), status.st_ino)
        try:
            with self._intents.naming(entry, target):
                give_name(planned.found, source, target)
        except StorageError as error:
            if error.details.get("errno") != "EXDEV":
                raise
            # For example another mount of the same file system.
            size = self._told(
                "measure", planned, lambda told: allocated_bytes(source, advance=told), "entries"
            )
            found = replace(found, size=size)
            return self._copy(replace(planned, action=Action.COPY, found=found))
        self._intents.done(entry)
        _log.info("converted path=%s target=%s action=rename", source, target)
        return Outcome(planned, Result.MOVED)

    def _copy(self, planned: Planned) -> Outcome:
        target = _target(planned)
        temporary = Layout.converting(target)
        require_ready(planned.found, target)
        remove_tree(temporary)
        self._require_room(planned, target.parent)
        try:
            replica = self._replicate(planned, temporary)
            self._complete(planned, temporary, target)
            with translated("inspect", temporary):
                inode = temporary.lstat().st_ino
            entry = self._intents.intend(planned, inode, replica.digest)
            with self._intents.naming(entry, target):
                give_name(planned.found, temporary, target)
        except BaseException:
            with suppress(CasError):  # the next run removes it
                remove_tree(temporary)
            raise
        self._remove_original(planned, entry)
        return Outcome(
            planned,
            Result.MOVED,
            digest_before=replica.digest,
            digest_after=replica.digest,
            sockets=replica.sockets,
            flags_lost=replica.flags_lost,
        )

    def _replicate(self, planned: Planned, temporary: Path) -> Replica:
        """Copy, and prove that what is on the device is the same."""
        source = planned.found.path
        replica = self._told(
            "copy", planned, lambda told: replicate(source, temporary, advance=told)
        )
        after = self._told("compare", planned, lambda told: content_digest(temporary, advance=told))
        if after != replica.digest:
            raise CopyMismatchError(
                f"the copy of {str(source)!r} reads back as {after}, expected {replica.digest}; it "
                "was removed and the original is untouched; see the kernel log for errors of the "
                "device",
                path=source,
                expected=replica.digest,
                actual=after,
            )
        return replica

    def _complete(self, planned: Planned, place: Path, target: Path) -> None:
        self._told(
            "complete",
            planned,
            lambda told: complete(planned.found, place, target, advance=told),
        )
        if planned.found.kind is Kind.VERIFIED:
            keep(self._layout, Digest(target.name))

    def _remove_for_good(self, planned: Planned) -> None:
        """Remove the original, whatever its files' flags say."""
        # A tree that is half removed would look like one that somebody has changed.
        source = planned.found.path
        aside = OldLayout.removing(source)
        remove_barred(aside)
        rename_aside(source, aside)
        self._told("remove", planned, lambda told: remove_barred(aside, advance=told), "entries")

    def _told(
        self,
        action: str,
        planned: Planned,
        work: Callable[[Callable[[int], None]], _Made],
        unit: str = "B",
    ) -> _Made:
        item = planned.found.path.name

        def advance(amount: int) -> None:
            self._cancel.check()
            self._progress.advance(action, item, amount)

        total = planned.found.size if unit == "B" else None
        self._progress.start(action, item, total, unit)
        try:
            return work(advance)
        finally:
            self._progress.finish(action, item)

    def _require_room(self, planned: Planned, directory: Path) -> None:
        free = free_bytes(directory) - self._min_free_bytes
        if free < planned.needed:
            raise NoSpaceError(
                f"the copy of {str(planned.found.path)!r} needs {planned.needed} bytes, "
                f"{planned.needed - free} more than {str(directory)!r} can give; make room and run "
                "the upgrade again",
                path=planned.found.path,
                needed=planned.needed,
                missing=planned.needed - free,
            )

    def _remove_original(self, planned: Planned, entry: Entry) -> None:
        source = planned.found.path
        with translated("inspect", source):
            changed = identity_of(source.lstat()) != planned.found.identity
        if changed:
            raise SourceChangedError(
                f"{str(source)!r} was written to after it was copied to {entry.target!r}; it stays "
                "where it is; see which of them is right",
                path=source,
            )
        self._remove_for_good(planned)
        self._intents.done(entry)
        _log.info("converted path=%s target=%s action=copy", source, entry.target)


def _unless_there(planned: Planned) -> Planned:
    """Discard a verified download instead, if another one of the same content was converted."""
    target = planned.target
    moves = planned.action in (Action.RENAME, Action.COPY)
    if planned.found.kind is not Kind.VERIFIED or target is None or not moves:
        return planned
    if not target.exists():
        return planned
    text = "the verifier has this content already"
    return replace(planned, action=Action.DISCARD, reason=Reason.COPIED_BEFORE, explanation=text)


def _target(planned: Planned) -> Path:
    if planned.target is None:
        raise StorageError(f"{str(planned.found.path)!r} has no target", path=planned.found.path)
    return planned.target
