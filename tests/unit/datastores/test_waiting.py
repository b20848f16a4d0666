"""Waits for what nobody can end."""

import socket
import threading
from collections.abc import Iterator

import pytest

from cas.datastores.opening import open_source
from cas.datastores.settings import SourceSettings, TransportSettings
from cas.datastores.waiting import awaited
from cas.errors import InterruptedOperationError, SourceStalledError
from cas.model.cancellation import Cancellation, begin_operation
from tests.support.waiting import wait_for


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends work that would take for ever."""
    release = threading.Event()
    yield release
    release.set()


@pytest.mark.parametrize("cancelled", [False, True])
def test_result_that_comes_too_late_is_discarded(cancelled: bool, release: threading.Event) -> None:
    """Too late for the limit, or for a caller who went away."""
    late: list[str] = []

    def work() -> str:
        release.wait()
        return "late"

    def ask() -> None:
        cancel = Cancellation()
        begin_operation(cancel)
        if cancelled:
            cancel.set()
            with pytest.raises(InterruptedOperationError):
                awaited(work, late.append, None)
        else:
            with pytest.raises(TimeoutError):
                awaited(work, late.append, 0.01)

    caller = threading.Thread(target=ask)  # whose context has the operation
    caller.start()
    caller.join()
    assert late == []
    release.set()
    wait_for(lambda: late == ["late"])


def test_failure_of_the_work_is_raised_where_it_is_awaited() -> None:
    """As it was."""

    def work() -> str:
        raise OSError(5, "broken")

    with pytest.raises(OSError, match="broken"):
        awaited(work, lambda _: None, None)


@pytest.mark.parametrize("url", ["http://h.invalid/", "https://h.invalid/", "sftp://b@h.invalid/a"])
def test_look_up_of_a_name_that_hangs_is_given_up(
    url: str, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the time that connections have: the resolver's own limit is minutes."""

    def hanging(*_: object, **_more: object) -> list[object]:
        release.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    settings = SourceSettings(url=url, transport=TransportSettings(connect_seconds=0.01))

    with open_source(settings) as source, pytest.raises(SourceStalledError):
        source.stat("x")
