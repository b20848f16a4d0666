"""The processes that stay, as a service manager runs them: started, watched, killed."""

__all__ = ["NotifySocket", "StayingProcess", "service_configuration", "wait_for"]

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from cas.model.settings import Settings
from tests.support.daemon import WAIT_SECONDS

_ROOT = Path(__file__).parents[2]
_POLL_SECONDS = 0.01


def wait_for(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until a condition holds; fail if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(_POLL_SECONDS)


def service_configuration(directory: Path, settings: Settings, **more: object) -> Path:
    """Write a configuration for a service that supervises a containerd of its own."""
    path = directory / "service.toml"
    owners = "".join(f'{role} = "{name}"\n' for role, name in settings.owners.items())
    given = "".join(f"{key} = {value!r}\n" for key, value in more.items())
    path.write_text(
        f'persist = "{settings.persist}"\nnamespace = "{settings.namespace}"\n'
        f'containerd_binary = "{settings.containerd_binary}"\n'
        f"wait_seconds = {settings.wait_seconds}\n{given}[owners]\n{owners}"
    )
    return path


class StayingProcess:
    """``cas serve`` or ``cas containerd run`` in a process of its own; a context manager.

    Args:
        config: Written by :func:`service_configuration`.
        arguments: Of the command.
        environment: In addition to this process's.
    """

    def __init__(
        self, config: Path, *arguments: object, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = config.parent / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cas", "--config", config, *map(str, arguments)],
                cwd=_ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """Of the command, not of its containerd."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def is_running(self) -> bool:
        """Whether it lives."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would; its containerd lives on."""
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for its end; gives the exit status, below 0 for a signal."""
        return self._process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running():
            self.signal(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
                raise


class NotifySocket:
    """What a service manager hears; a context manager.

    Args:
        path: Where it listens.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def listen(self) -> list[str]:
        """Take in what has come; gives everything heard so far, an assignment each."""
        while True:
            try:
                message = self._socket.recv(4096)
            except BlockingIOError:
                return self.heard
            self.heard += message.decode().splitlines()

    def wait_for(self, assignment: str) -> None:
        """Wait until it has been heard."""
        wait_for(lambda: assignment in self.listen(), f"{assignment}, heard {self.heard}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
