"""A process held so that what is done to it can reach no other one that got its number."""

__all__ = ["PinnedProcess"]

import os
import select
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cas.fsops.translation import translated

_KILL_SECONDS = 10.0
"""One that the kernel cannot end by then waits for a device."""


class PinnedProcess:
    """A process of this pid namespace, not necessarily a child; a context manager.

    Args:
        pid: Its number now. If there is none of this number, it has ended.

    Raises:
        StorageError: The kernel has no pidfd_open(2), which came with 5.3.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor: int | None = None
        with translated("open process", Path(f"/proc/{pid}")):
            try:
                self._descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return

    def has_ended(self, wait_seconds: float = 0.0) -> bool:
        """Wait for its end; True once it has ended, even if nobody has asked for its status."""
        if self._descriptor is None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(wait_seconds * 1000))

    def environment(self) -> Mapping[str, str]:
        """What it was started with; empty if it has ended or may not be looked at."""
        try:
            raw = Path(f"/proc/{self.pid}/environ").read_bytes()
        except OSError:
            return {}
        if self.has_ended():  # then this may have been another process's
            return {}
        pairs = (os.fsdecode(entry).partition("=") for entry in raw.split(b"\0") if entry)
        return {name: value for name, _, value in pairs}

    def end(self, grace_seconds: float) -> None:
        """Ask it to end, kill it after the grace, and wait for its end. Idempotent.

        Raises:
            DeniedError: It belongs to somebody else.
        """
        self._signal(signal.SIGTERM)
        if not self.has_ended(grace_seconds):
            self._signal(signal.SIGKILL)
            self.has_ended(_KILL_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        if self._descriptor is None:
            return
        with translated("end process", Path(f"/proc/{self.pid}")):
            try:
                signal.pidfd_send_signal(self._descriptor, number)
            except ProcessLookupError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
