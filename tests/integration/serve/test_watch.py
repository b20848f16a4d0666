"""What the service makes of a containerd that ends at an awkward moment."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cas.app import Case
from cas.containerd.client import Containerd
from cas.daemon.failures import Failures
from cas.daemon.metrics import Metrics
from cas.daemon.notification import ServiceManager
from cas.daemon.recovery import RecoveryRunner
from cas.daemon.watch import Watch
from cas.model.settings import Settings
from cas.rpc.health import HealthProbe
from tests.support.serving import server_of
from tests.support.waiting import wait_for


class _Watched:
    """A watch that looks when it is told to, and what it tells."""

    def __init__(self, case: Case, socket: Path, stack: ExitStack) -> None:
        self._metrics = Metrics()
        server = stack.enter_context(server_of(case, socket))
        failures = Failures(threading.Event())
        recovery = RecoveryRunner(case.recover, self._metrics.recovered, failures=failures)
        stack.callback(recovery.close, 10.0)
        self.watch = Watch(
            case,
            server,
            probe=stack.enter_context(HealthProbe(socket)),
            manager=stack.enter_context(ServiceManager()),
            metrics=self._metrics,
            recovery=recovery,
            failures=failures,
        )

    @property
    def is_up(self) -> bool:
        return self._metrics.registry.get_sample_value("cas_containerd_up") == 1.0

    @property
    def recoveries(self) -> float | None:
        labels = {"outcome": "done"}
        return self._metrics.registry.get_sample_value("cas_recoveries_total", labels)


@pytest.fixture
def watched(settings: Settings) -> Iterator[_Watched]:
    """The watch of a store that is served."""
    with Case.open(settings) as case, ExitStack() as stack:
        yield _Watched(case, settings.persist / f"{settings.namespace}.sock", stack)


def test_answer_that_containerd_gave_before_its_end_is_not_told_after_it(
    watched: _Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else health would say yes of one that is gone, and what it left would not be recovered."""
    health = Containerd.health

    def ends_after_its_answer(containerd: Containerd, seconds: float) -> None:
        health(containerd, seconds)
        watched.watch.containerd_ended()

    with monkeypatch.context() as patch:
        patch.setattr(Containerd, "health", ends_after_its_answer)
        watched.watch.look()
    assert not watched.is_up
    assert watched.recoveries is None

    watched.watch.look()

    assert watched.is_up
    wait_for(lambda: watched.recoveries == 1.0)
