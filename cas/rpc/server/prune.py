"""Prunes, which three services offer: planned, and done at once or by a later call."""

__all__ = ["PruneCalls"]

import secrets
import threading
import time
from collections.abc import Generator, Iterator

from cas._gen.cas.v1 import types_pb2
from cas.errors import NotFoundError, UsageError
from cas.model.progress import Progress
from cas.rpc import messages
from cas.rpc.server.batches import batched
from cas.rpc.server.call import Call
from cas.rpc.server.reporting import reported
from cas.rpc.server.served import Workshop
from cas.store.prune.plan import Goal, PrunePlan
from cas.store.prune.prune import PruneResult
from cas.store.prune.selection import Scope, parse_selection

_KEPT_SECONDS = 600.0
_KEPT_PLANS = 8
"""A plan of a large store takes some MiB."""


class PruneCalls:
    """Serves prunes of one store.

    Args:
        shop: What it works with.
    """

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._prune = shop.store.prune
        self._plans = _Plans()

    def run(
        self, request: types_pb2.PruneRequest, call: Call, scope: Scope
    ) -> Iterator[types_pb2.PruneResponse]:
        """Plan, and unless it is a dry run, remove."""
        if request.plan_id:
            plan = self._planned_before(request)
        else:
            plan = yield from self._plan(request, call, scope)
        if request.dry_run:
            for group in batched(map(messages.planned_object, plan.objects)):
                yield types_pb2.PruneResponse(planned=types_pb2.PrunedObjects(objects=group))
            yield types_pb2.PruneResponse(
                result=messages.plan_summary(plan, self._plans.keep(plan))
            )
            return
        self._shop.store.guard.check_writable()
        yield from self._execute(plan, call)

    def _planned_before(self, request: types_pb2.PruneRequest) -> PrunePlan:
        if len(request.ListFields()) > 1:
            raise UsageError(
                "a prune by the id of a plan takes nothing else: it is planned already"
            )
        return self._plans.get(request.plan_id)

    def _plan(
        self, request: types_pb2.PruneRequest, call: Call, scope: Scope
    ) -> Generator[types_pb2.PruneResponse, None, PrunePlan]:
        selection = parse_selection(request.filters, now=self._shop.store.now(), scope=scope)
        goal = _goal(request)

        def work(_progress: Progress) -> PrunePlan:
            return self._prune.plan(selection, goal=goal)

        return (
            yield from reported(call, self._shop.workers, self._shop.gates.account, work, _pruning)
        )

    def _execute(self, plan: PrunePlan, call: Call) -> Iterator[types_pb2.PruneResponse]:
        def work(progress: Progress) -> PruneResult:
            return self._prune.execute(plan, cancel=call.cancellation, progress=progress)

        result = yield from reported(
            call, self._shop.workers, self._shop.gates.account, work, _pruning
        )
        for group in batched(map(messages.planned_object, result.removed)):
            yield types_pb2.PruneResponse(removed=types_pb2.PrunedObjects(objects=group))
        for group in batched(map(messages.skipped_object, result.skipped)):
            yield types_pb2.PruneResponse(skipped=types_pb2.PrunedObjects(objects=group))
        yield types_pb2.PruneResponse(result=messages.prune_summary(result, plan))


def _pruning(report: types_pb2.Progress) -> types_pb2.PruneResponse:
    return types_pb2.PruneResponse(progress=report)


def _goal(request: types_pb2.PruneRequest) -> Goal | None:
    if request.keep_at_most < 0 or request.min_free < 0:
        raise UsageError("a prune's goals are numbers of bytes, 0 or more")
    keep_at_most = request.keep_at_most if request.HasField("keep_at_most") else None
    min_free = request.min_free if request.HasField("min_free") else None
    if keep_at_most is None and min_free is None:
        return None
    return Goal(keep_at_most=keep_at_most, min_free=min_free)


class _Plans:
    """Plans that callers looked at and may have done as they are, for some time."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._plans: dict[str, tuple[float, PrunePlan]] = {}

    def keep(self, plan: PrunePlan) -> str:
        """Remember a plan and give its id."""
        plan_id = secrets.token_hex(16)
        with self._guard:
            self._drop_old()
            while len(self._plans) >= _KEPT_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[plan_id] = (time.monotonic(), plan)
        return plan_id

    def get(self, plan_id: str) -> PrunePlan:
        """Give a plan, as often as somebody asks: to do it again does no harm.

        Raises:
            NotFoundError: There is none of this id any more.
        """
        with self._guard:
            self._drop_old()
            found = self._plans.get(plan_id)
        if found is None:
            raise NotFoundError(
                f"there is no plan {plan_id[:100]!r}; plans are kept for "
                f"{_KEPT_SECONDS / 60:.0f} minutes: plan anew",
                plan=plan_id[:100],
            )
        return found[1]

    def _drop_old(self) -> None:
        now = time.monotonic()
        self._plans = {
            key: kept for key, kept in self._plans.items() if now - kept[0] <= _KEPT_SECONDS
        }
