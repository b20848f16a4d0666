"""What the service tells the service manager, as sd_notify(3) wants it.

Nothing here has an effect where no manager listens, and nothing fails where one does not hear.
"""

__all__ = ["ServiceManager"]

import logging
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from systemd_watchdog.systemd_watchdog import WatchDog

_log = logging.getLogger(__name__)

_SEND_SECONDS = 1.0
"""A manager that does not read must not stop the service."""


class _Client(WatchDog):
    """The library's client, with the one message that it has no method for."""

    def stopping(self) -> None:
        """Tell that the service ends."""
        self._send("STOPPING=1\n")


class ServiceManager:
    """The manager that started this process, as the environment names it; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_SECONDS)
        self._client = _Client(sock=self._socket)
        self._status = ""

    @property
    def watchdog_seconds(self) -> float:
        """How long the manager waits for a sign of life; a day where it waits for none."""
        return self._client.timeout_td.total_seconds()

    def ready(self) -> None:
        """Tell that the service can be used."""
        self._tell(self._client.ready)

    def stopping(self) -> None:
        """Tell that it will not be much longer."""
        self._tell(self._client.stopping)

    def alive(self) -> None:
        """Give a sign of life."""
        self._tell(self._client.notify)

    def status(self, text: str) -> None:
        """Tell people in one line what the service is doing; repetitions are not sent."""
        if text != self._status:
            self._status = text
            self._tell(lambda: self._client.status(text))

    def _tell(self, send: Callable[[], None]) -> None:
        try:
            send()
        except OSError as error:
            _log.warning("service manager not told error=%s", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
