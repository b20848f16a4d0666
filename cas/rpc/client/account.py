"""What there is to know about a store, asked for from the service: usage, why, check."""

__all__ = ["UsageClient", "WhyClient", "check_store"]

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from cas._gen.cas.v1 import store_pb2, store_pb2_grpc
from cas.model.cancellation import Cancellation
from cas.model.progress import NO_PROGRESS, Progress
from cas.rpc import store_values
from cas.rpc.client.calls import Calls
from cas.store.account.usage_values import StoreUsage
from cas.store.account.why import Explanation
from cas.store.check.report import CheckReport


class UsageClient:
    """Accounts for the disk; see :class:`cas.store.account.usage.Usage`.

    Args:
        calls: Makes the calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = store_pb2_grpc.StoreStub(calls.channel)

    def measure(
        self, *, cancel: Cancellation | None = None, progress: Progress = NO_PROGRESS
    ) -> StoreUsage:
        """Walk everything below the persist directory once.

        Args:
            cancel: Stops the walk.
            progress: Told the number of entries looked at, per part.

        Raises:
            UnavailableError: The service or its containerd does not answer.
            StorageError: A directory cannot be read.
            InterruptedOperationError: ``cancel`` was set.
        """
        request = store_pb2.UsageRequest()
        return store_values.store_usage(
            self._calls.steps(
                self._stub.Usage, request, action="measure usage", progress=progress, cancel=cancel
            )
        )


class WhyClient:
    """Explains what keeps objects; see :class:`cas.store.account.why.Why`.

    Args:
        calls: Makes the calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = store_pb2_grpc.StoreStub(calls.channel)

    def explain(self, name: str) -> list[Explanation]:
        """Tell what keeps every object of this name.

        Raises:
            NotFoundError: Nothing has the name.
            UnavailableError: The service or its containerd does not answer.
        """
        request = store_pb2.WhyRequest(object=name)
        answer = self._calls.unary(self._stub.Why, request, action=f"explain {name!r}")
        return list(map(store_values.explanation, answer.explanations))


def check_store(
    calls: Calls,
    *,
    read_data: bool,
    max_duration: timedelta | None,
    fix: bool,
    cancel: Cancellation | None,
    progress: Progress,
) -> CheckReport:
    """Check the store; see :func:`cas.store.check.report.check_store`."""
    duration = None
    if max_duration is not None:
        duration = Duration()
        duration.FromTimedelta(max_duration)
    request = store_pb2.CheckRequest(read_data=read_data, max_duration=duration, fix=fix)
    findings, repaired, scrub = [], [], None
    for step in calls.steps(
        store_pb2_grpc.StoreStub(calls.channel).Check,
        request,
        action="check the store",
        progress=progress,
        cancel=cancel,
    ):
        if step.HasField("finding"):
            findings.append(store_values.finding(step.finding))
        elif step.HasField("repaired"):
            repaired.append(store_values.repaired(step.repaired))
        elif step.HasField("scrub"):
            scrub = store_values.scrub(step.scrub)
    return CheckReport(tuple(findings), tuple(repaired), scrub)
