"""What a service manager hears, on a real socket."""

from datetime import timedelta
from pathlib import Path

import pytest

from cas.daemon.notification import ServiceManager
from tests.support.service import NotifySocket


def test_messages_are_those_of_sd_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that does not change is told once."""
    with NotifySocket(tmp_path / "notify") as heard:
        monkeypatch.setenv("NOTIFY_SOCKET", str(heard.path))
        monkeypatch.setenv("WATCHDOG_USEC", "1500000")
        with ServiceManager() as manager:
            assert manager.watchdog_seconds == 1.5
            manager.status("starting")
            manager.ready()
            manager.status("starting")
            manager.alive()
            manager.status("ending")
            manager.stopping()
        assert heard.listen() == [
            "STATUS=starting", "READY=1", "WATCHDOG=1", "STATUS=ending", "STOPPING=1",
        ]  # fmt: skip


def test_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is inherited, and so may be meant for a parent."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with ServiceManager() as manager:
        assert manager.watchdog_seconds >= timedelta(days=1).total_seconds()


@pytest.mark.parametrize("place", ["absent", "full"])
def test_manager_that_does_not_listen_stops_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have gone, or it may have stopped to read."""
    with NotifySocket(tmp_path / "full"):
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / place))
        monkeypatch.setattr("cas.daemon.notification._SEND_SECONDS", 0.01)
        with ServiceManager() as manager:
            for number in range(600 if place == "full" else 2):
                manager.status(str(number))
            manager.ready()


def test_messages_without_a_manager_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a terminal."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with ServiceManager() as manager:
        manager.ready()
        manager.stopping()
