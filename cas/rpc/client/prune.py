"""Prune, asked for from the service; :class:`cas.store.prune.prune.Prune` has the promises."""

__all__ = ["PruneClient", "RemotePlan"]

from dataclasses import dataclass, field, fields

from cas._gen.cas.v1 import blobs_pb2_grpc, images_pb2_grpc, store_pb2_grpc, types_pb2
from cas.errors import UsageError
from cas.model.cancellation import Cancellation
from cas.model.progress import NO_PROGRESS, Progress
from cas.rpc import store_values
from cas.rpc.client.calls import Calls
from cas.store.prune.plan import Goal, PrunePlan
from cas.store.prune.prune import PruneResult
from cas.store.prune.selection import Scope, Selection


@dataclass(frozen=True, slots=True)
class RemotePlan(PrunePlan):
    """A plan that the service keeps for ten minutes.

    Args:
        plan_id: What the service calls it.
        scope: Which of its prune calls made it.
    """

    plan_id: str = ""
    scope: Scope = Scope.ALL


@dataclass
class _Answers:
    """What came of one call."""

    planned: list[types_pb2.PrunedObject] = field(default_factory=list)
    removed: list[types_pb2.PrunedObject] = field(default_factory=list)
    skipped: list[types_pb2.PrunedObject] = field(default_factory=list)
    result: types_pb2.PruneResult = field(default_factory=types_pb2.PruneResult)


class PruneClient:
    """Plans and runs the removal of what nothing needs.

    Args:
        calls: Makes the calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._methods = {
            Scope.ALL: store_pb2_grpc.StoreStub(calls.channel).Prune,
            Scope.IMAGES: images_pb2_grpc.ImagesStub(calls.channel).Prune,
            Scope.BLOBS: blobs_pb2_grpc.BlobsStub(calls.channel).Prune,
        }

    def plan(
        self,
        selection: Selection | None = None,
        *,
        goal: Goal | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> RemotePlan:
        """Say what a run would do; changes nothing.

        Args:
            selection: References that may go, as :func:`parse_selection` makes it; None for all
                images that no volume uses.
            goal: Stop as soon as it is reached, least recently used first; None for no such end.
            cancel: Stops looking.
            progress: Told what is looked at.

        Raises:
            UnavailableError: The service or its containerd does not answer.
        """
        selection = selection or Selection()
        goal = goal or Goal()
        request = types_pb2.PruneRequest(
            filters=selection.texts,
            keep_at_most=goal.keep_at_most,
            min_free=goal.min_free,
            dry_run=True,
        )
        answers = self._call(selection.scope, request, "plan a prune", cancel, progress)
        plan = store_values.prune_plan(answers.planned, answers.result)
        return RemotePlan(
            **{each.name: getattr(plan, each.name) for each in fields(plan)},
            plan_id=answers.result.plan_id,
            scope=selection.scope,
        )

    def execute(
        self,
        plan: PrunePlan,
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> PruneResult:
        """Do exactly what the plan says, less what is in use by now.

        See :meth:`cas.store.prune.prune.Prune.execute` for what holds after an interruption.

        Args:
            plan: Made by :meth:`plan` within the last ten minutes.
            cancel: Stops between two removals; containerd's collection then still runs some time.
            progress: Told about references that are dropped.

        Raises:
            UsageError: The plan was made elsewhere.
            NotFoundError: The service has forgotten the plan; make a new one.
            StoreMetadataLostError: containerd's database was emptied; nothing was deleted.
            InterruptedOperationError: ``cancel`` was set.
        """
        if not isinstance(plan, RemotePlan):
            raise UsageError("a service runs only plans of its own; make one with its client")
        request = types_pb2.PruneRequest(plan_id=plan.plan_id)
        answers = self._call(plan.scope, request, "prune", cancel, progress)
        return store_values.prune_result(answers.removed, answers.skipped, answers.result)

    def _call(
        self,
        scope: Scope,
        request: types_pb2.PruneRequest,
        action: str,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> _Answers:
        answers = _Answers()
        for step in self._calls.steps(
            self._methods[scope], request, action=action, progress=progress, cancel=cancel
        ):
            answers.planned.extend(step.planned.objects)
            answers.removed.extend(step.removed.objects)
            answers.skipped.extend(step.skipped.objects)
            if step.HasField("result"):
                answers.result = step.result
        return answers
