"""Removing what nothing refers to, and proving that the space came back.

A run drops references only: names, pins, leases of the dead, abandoned writes. What that frees is
containerd's to decide, in one collection that stops the world; so whatever a running ingest or
prepare holds by a lease survives, even if it began after the plan was made. That is why no lock of
the store is taken: a prune that waited for an import of hours would not come when the disk is full.
What is left to guard is the image or pinned blob that becomes used between plan and removal: its
record is looked at again under its own lock.

Killed at any point, a repeat completes: references that are gone stay gone, and what they held is
found as kept by nobody.
"""

__all__ = ["Prune", "PruneResult"]

from dataclasses import dataclass
from pathlib import Path

from cas.fsops.trees import free_bytes
from cas.model.cancellation import Cancellation
from cas.model.events import EventKind
from cas.model.progress import NO_PROGRESS, Progress
from cas.store.account.inventory import OtherContent, take_inventory
from cas.store.account.sizes import ObjectSizes, store_bytes
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.store.prune.collection import collect_files
from cas.store.prune.execution import PlanExecution, Skipped
from cas.store.prune.plan import Goal, PlannedObject, PrunePlan, make_plan
from cas.store.prune.reserve import reserve_given_up
from cas.store.prune.selection import Selection
from cas.store.sentinel import Sentinel
from cas.store.transfers import idle_transfers


@dataclass(frozen=True, slots=True)
class PruneResult:
    """What a run did.

    Args:
        removed: What is gone; looked at one by one where this process reaches the files.
        skipped: What is not, each with the reason.
        free_before: Bytes free on the store's file system before; what others write counts too.
        free_after: The same afterwards.
        missing: Bytes by which the goal is missed.
    """

    removed: tuple[PlannedObject, ...]
    skipped: tuple[Skipped, ...]
    free_before: int
    free_after: int
    missing: int

    @property
    def size(self) -> int:
        """Bytes that came free."""
        return sum(planned.size for planned in self.removed)


class Prune:
    """Plans and runs the removal of what nothing needs.

    Args:
        backing: The store.
        others: Content of the other namespaces of this containerd.
    """

    def __init__(self, backing: Backing, *, others: OtherContent = tuple) -> None:
        self._backing = backing
        self._others = others
        self._locks = Locks(backing.layout)
        self._sentinel = Sentinel(backing)

    def plan(self, selection: Selection | None = None, *, goal: Goal | None = None) -> PrunePlan:
        """Say what a run would do; changes nothing.

        Args:
            selection: References that may go; None for all images that no volume uses.
            goal: Stop as soon as it is reached, least recently used first; None for no such end.

        Raises:
            UnavailableError: containerd does not answer.
            InterruptedOperationError: The operation that this belongs to was stopped, see
                :func:`cas.model.cancellation.begin_operation`.
        """
        selection = selection or Selection()
        now = self._backing.clock()
        inventory = take_inventory(self._backing, now=now, pins=selection.pins, others=self._others)
        sizes = ObjectSizes(self._backing, inventory)
        downloads = tuple(idle_transfers(self._backing.layout, now))
        needed = None
        if goal is not None:
            size = store_bytes(self._backing, inventory, sizes)
            needed = self._needed(goal, size + sum(file.size for file in downloads))
        return make_plan(
            inventory, selection, now=now, size_of=sizes, needed=needed, downloads=downloads
        )

    def execute(
        self,
        plan: PrunePlan,
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> PruneResult:
        """Do exactly what the plan says, less what is in use by now.

        Works on a full disk. Repeating it, or making a new plan after an interruption, completes
        what was begun.

        Args:
            plan: Made by :meth:`plan`; the store may have changed since.
            cancel: Stops between two removals; containerd's collection then still runs some time.
            progress: Told about references that are dropped.

        Raises:
            StoreMetadataLostError: containerd's database was emptied; nothing was deleted.
            InterruptedOperationError: ``cancel`` was set.
            UnavailableError: containerd does not answer.
        """
        self._backing.check_writable()
        Sentinel(self._backing).require()
        execution = PlanExecution(self._backing, self._locks, plan)
        before = self._free()
        # Making a reserve takes room: not when somebody asked for so much free room.
        with reserve_given_up(self._backing.layout, make=plan.needed is None):
            execution.drop_references(cancel or Cancellation(), progress)
            collect_files(self._backing)
            outcome = list(execution.outcome())
        removed = tuple(each for each in outcome if isinstance(each, PlannedObject))
        blobs = (each.name for each in removed if each.kind == "blob")
        self._backing.events.publish(EventKind.BLOB_REMOVED, blobs)
        freed = sum(each.size for each in removed)
        return PruneResult(
            removed=removed,
            skipped=tuple(each for each in outcome if isinstance(each, Skipped)),
            free_before=before,
            free_after=self._free(),
            missing=max(0, (plan.needed or 0) - freed),
        )

    def _needed(self, goal: Goal, size: int) -> int:
        too_much = 0 if goal.keep_at_most is None else size - goal.keep_at_most
        too_little = 0 if goal.min_free is None else goal.min_free - self._free()
        return max(0, too_much, too_little)

    def _free(self) -> int:
        return free_bytes(self._place())

    def _place(self) -> Path:
        layout, blobs = self._backing.layout, self._backing.blobs_directory
        candidates = [*([blobs, *blobs.parents] if blobs else []), layout.case, layout.vault]
        return next((path for path in candidates if path.is_dir()), layout.persist)
