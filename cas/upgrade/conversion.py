"""Does what is planned for one thing, so that a kill at any moment loses nothing.

A rename is one step. A copy is made beside its target under a temporary name, synced, read back
and compared; then the journal is told which inode is about to get the name; then it gets it; only
then the original goes. Whatever a kill leaves is recognised by the next run: a temporary name is
removed, a target with the noted inode is its own, and every other target is somebody else's.
"""

__all__ = ["Conversion"]

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from cas.errors import (
    CasError,
    InterruptedOperationError,
    SourceChangedError,
    StorageError,
)
from cas.fsops.durable import rename_aside
from cas.fsops.inode_flags import remove_barred
from cas.fsops.translation import translated
from cas.fsops.trees import allocated_bytes, remove_tree
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.store.kept_downloads import keep
from cas.upgrade.completion import complete, give_name
from cas.upgrade.download_target import free_target, holds
from cas.upgrade.intents import Intents
from cas.upgrade.items import Action, Kind, Outcome, Planned, Result
from cas.upgrade.journal import Entry
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.proven_copy import proven_copy, require_room
from cas.upgrade.readiness import require_ready
from cas.upgrade.scan import identity_of
from cas.upgrade.telling import Telling

_log = logging.getLogger(__name__)


class Conversion:
    """Converts one thing after the other.

    Args:
        intents: Tells the journal.
        layout: Of the device.
        min_free_bytes: Room that a copy leaves.
        telling: Told of what is done; may end it.
    """

    def __init__(
        self,
        intents: Intents,
        *,
        layout: Layout,
        min_free_bytes: int,
        telling: Telling,
    ) -> None:
        self._intents = intents
        self._layout = layout
        self._min_free_bytes = min_free_bytes
        self._telling = telling

    def convert(self, planned: Planned) -> Outcome:
        """Do what is planned; a failure is an outcome and leaves the original where it was.

        Raises:
            InterruptedOperationError: It is to end; what was begun is undone.
        """
        self._telling.check()
        try:
            return self._act(free_target(planned, partial(self._is_whole, planned)))
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
            size = self._telling.told(
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
        require_room(planned, target.parent, self._min_free_bytes)
        try:
            replica = proven_copy(planned, temporary, self._telling)
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

    def _is_whole(self, planned: Planned, path: Path) -> bool:
        digest = Digest(_target(planned).name)
        return self._telling.told(
            "compare", planned, lambda told: holds(path, digest, advance=told)
        )

    def _complete(self, planned: Planned, place: Path, target: Path) -> None:
        self._telling.told(
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
        self._telling.told(
            "remove", planned, lambda told: remove_barred(aside, advance=told), "entries"
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


def _target(planned: Planned) -> Path:
    if planned.target is None:
        raise StorageError(f"{str(planned.found.path)!r} has no target", path=planned.found.path)
    return planned.target
