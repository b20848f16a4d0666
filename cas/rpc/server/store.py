"""The service ``cas.v1.Store``."""

__all__ = ["StoreServicer"]

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType

from cas import __version__
from cas._gen.cas.v1 import store_pb2, types_pb2
from cas.errors import UsageError
from cas.model.events import EventKind
from cas.model.progress import Progress
from cas.rpc import messages
from cas.rpc.server.batches import batched
from cas.rpc.server.call import Call
from cas.rpc.server.prune import PruneCalls
from cas.rpc.server.registry import Kind, RunningCalls
from cas.rpc.server.reporting import reported
from cas.rpc.server.served import Workshop
from cas.store.account.usage_values import StoreUsage
from cas.store.check.report import CheckReport
from cas.store.prune.selection import Scope

_MAX_KEY_BYTES = 256
_MAX_OBJECT_BYTES = 4096


class StoreServicer:
    """Serves a store as a whole.

    Args:
        shop: What it works with.
        prune: Serves prunes.
        calls: The calls that can be waited for.
        message_bytes: Largest request that the server takes.
    """

    SERVICE = store_pb2.DESCRIPTOR.services_by_name["Store"]
    READING = frozenset(
        {"version", "usage", "why", "wait", "events"}
        | {"prune", "check"}  # unless they are to change something: they look themselves
    )
    UNGUARDED = frozenset({"version", "wait"})
    KINDS: Mapping[str, Kind] = MappingProxyType({"wait": Kind.AWAIT, "events": Kind.LISTEN})

    def __init__(
        self, shop: Workshop, prune: PruneCalls, calls: RunningCalls, *, message_bytes: int
    ) -> None:
        self._shop = shop
        self._store = shop.store
        self._prune = prune
        self._calls = calls
        self._message_bytes = message_bytes

    def version(self, _request: store_pb2.VersionRequest, _call: Call) -> store_pb2.VersionResponse:
        """Say who answers; asks containerd nothing."""
        settings, facts = self._store.settings, self._store.containerd.facts
        return store_pb2.VersionResponse(
            cas=__version__,
            containerd=facts.version_text,
            persist=messages.text(settings.persist),
            namespace=settings.namespace,
            snapshotter=settings.snapshotter,
            address=messages.text(settings.socket),
            allowed_directories=map(messages.text, self._shop.paths.directories),
            message_bytes=self._message_bytes,
            platform=messages.platform(self._store.images.platform),
            content_root=messages.text(facts.content_root or ""),
        )

    def usage(
        self, _request: store_pb2.UsageRequest, call: Call
    ) -> Iterator[store_pb2.UsageResponse]:
        """Account for the disk."""

        def work(progress: Progress) -> StoreUsage:
            return self._store.usage.measure(progress=progress)

        usage = yield from reported(
            call, self._shop.workers, self._shop.gates.account, work, _measuring
        )
        yield from _account(usage)

    def prune(
        self, request: types_pb2.PruneRequest, call: Call
    ) -> Iterator[types_pb2.PruneResponse]:
        """Remove what nothing refers to."""
        return self._prune.run(request, call, Scope.ALL)

    def check(
        self, request: store_pb2.CheckRequest, call: Call
    ) -> Iterator[store_pb2.CheckResponse]:
        """Verify the invariants."""
        max_duration = _max_duration(request)
        if request.fix:
            self._store.guard.check_writable()

        def work(progress: Progress) -> CheckReport:
            return self._store.check_store(
                read_data=request.read_data,
                max_duration=max_duration,
                fix=request.fix,
                cancel=call.cancellation,
                progress=progress,
            )

        report = yield from reported(
            call, self._shop.workers, self._shop.gates.account, work, _checking
        )
        for finding in report.findings:
            yield store_pb2.CheckResponse(finding=messages.finding(finding))
        for outcome in report.repaired:
            yield store_pb2.CheckResponse(repaired=messages.repaired(outcome))
        if report.scrub is not None:
            yield store_pb2.CheckResponse(scrub=messages.scrub(report.scrub))

    def why(self, request: store_pb2.WhyRequest, call: Call) -> store_pb2.WhyResponse:
        """Explain what keeps an object."""
        if not 0 < len(request.object.encode()) <= _MAX_OBJECT_BYTES:
            raise UsageError(f"the name of an object has 1 to {_MAX_OBJECT_BYTES} bytes")
        with self._shop.gates.account.entered(call.cancellation):
            listed = self._store.why.explain(request.object)
        return store_pb2.WhyResponse(explanations=map(messages.explanation, listed))

    def recover(self, _request: store_pb2.RecoverRequest, call: Call) -> store_pb2.RecoverResponse:
        """Finish or undo what killed operations left."""
        with self._shop.gates.account.entered(call.cancellation):
            self._store.recover()
        return store_pb2.RecoverResponse()

    def collect_garbage(
        self, _request: store_pb2.CollectGarbageRequest, call: Call
    ) -> store_pb2.CollectGarbageResponse:
        """Remove, now, what nothing refers to."""
        with self._shop.gates.account.entered(call.cancellation):
            self._store.collect_garbage()
        return store_pb2.CollectGarbageResponse()

    def wait(self, request: store_pb2.WaitRequest, call: Call) -> store_pb2.WaitResponse:
        """Return when no call of this key runs."""
        if not 0 < len(request.call.encode()) <= _MAX_KEY_BYTES:
            raise UsageError(f"the key of a call has 1 to {_MAX_KEY_BYTES} bytes")
        self._calls.wait_for(request.call, call.cancellation)
        return store_pb2.WaitResponse()

    def events(self, request: store_pb2.EventsRequest, call: Call) -> Iterator[store_pb2.Event]:
        """Tell what happens from now on."""
        wanted = _kinds(request.kinds)
        with self._store.events.subscribe(call.cancellation) as events:
            yield store_pb2.Event(time=messages.instant(self._store.now()))
            for event in events:
                if event.kind in wanted:
                    yield messages.event(event)
        call.cancellation.check()


def _measuring(report: types_pb2.Progress) -> store_pb2.UsageResponse:
    return store_pb2.UsageResponse(progress=report)


def _checking(report: types_pb2.Progress) -> store_pb2.CheckResponse:
    return store_pb2.CheckResponse(progress=report)


def _account(usage: StoreUsage) -> Iterator[store_pb2.UsageResponse]:
    for entries in batched(map(messages.usage_entry, usage.entries)):
        yield store_pb2.UsageResponse(entries=store_pb2.UsageEntries(entries=entries))
    for volumes in batched(map(messages.volume_share, usage.volumes)):
        yield store_pb2.UsageResponse(volumes=store_pb2.VolumeShares(volumes=volumes))
    for images in batched(map(messages.image_usage, usage.images)):
        yield store_pb2.UsageResponse(images=store_pb2.ImageUsages(images=images))
    for systems in batched(map(messages.file_system, usage.file_systems)):
        yield store_pb2.UsageResponse(file_systems=store_pb2.FileSystems(file_systems=systems))


def _max_duration(request: store_pb2.CheckRequest) -> timedelta | None:
    if not request.HasField("max_duration"):
        return None
    try:
        duration = request.max_duration.ToTimedelta()
    except (OverflowError, ValueError) as error:
        raise UsageError(f"max_duration is no duration: {error}") from error
    if duration < timedelta(0) or not request.read_data:
        raise UsageError("max_duration is 0 or more, and goes with read_data")
    return duration


def _kinds(names: Sequence[str]) -> frozenset[EventKind]:
    try:
        return frozenset(map(EventKind, names)) or frozenset(EventKind)
    except ValueError as error:
        known = ", ".join(EventKind)
        raise UsageError(f"unknown kind of event: {error}; known are {known}") from error
