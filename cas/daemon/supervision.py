"""A containerd of the store's own: prepared, supervised, ended."""

__all__ = ["Supervision", "run_containerd", "tell_log_line", "wait_for_vault"]

import logging
import os
import re
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from cas.app import require_root
from cas.containerd.daemon import Daemon
from cas.daemon.failures import Failures
from cas.daemon.orphan import end_orphan, supervised_environment
from cas.errors import InterruptedOperationError
from cas.fsops import processes
from cas.model.settings import Settings
from cas.store.directories import require_directories
from cas.store.guard import VaultGuard
from cas.upgrade.old_store import require_store_converted

_log = logging.getLogger(__name__)
_VAULT_POLL_SECONDS = 0.2
_containerd_log = logging.getLogger("cas.daemon.containerd")
_CHATTER = re.compile(r"\blevel=(info|debug)\b")


def tell_log_line(line: str) -> None:
    """Pass on a line of containerd's log: what is no warning only to whoever wants all."""
    _containerd_log.log(logging.DEBUG if _CHATTER.search(line) else logging.WARNING, "%s", line)


def wait_for_vault(
    settings: Settings, stop: threading.Event, *, on_wait: Callable[[], object] = lambda: None
) -> bool:
    """Wait while the vault is locked or being locked; one that is plain or missing is not.

    Args:
        settings: Where it is.
        stop: Ends the wait.
        on_wait: Called if there is something to wait for.

    Returns:
        False if ``stop`` was set before.

    Raises:
        StorageError: The vault cannot be looked at.
    """
    guard = VaultGuard.of(settings)
    if guard.is_closed():
        on_wait()
        _log.warning("waiting for the vault to be unlocked path=%s", settings.layout.vault)
    while guard.is_closed():
        if stop.wait(_VAULT_POLL_SECONDS):
            return False
    return not stop.is_set()


def _prepare(settings: Settings, log: Callable[[str], None]) -> Daemon:
    """See that the store's containerd may run, and end one that a killed supervisor left."""
    require_root()
    layout = settings.layout
    VaultGuard.of(settings).check_writable()
    require_directories(settings, (layout.vault, layout.case))
    require_store_converted(layout)
    end_orphan(layout.case)
    environment = supervised_environment(os.environ, processes.current(), layout.case)
    return Daemon(settings, log=log, environment=environment)


def run_containerd(
    settings: Settings, *, announce: Callable[[str], None], stop: threading.Event
) -> None:
    """Run the store's containerd until ``stop`` is set, and while the vault is open.

    It waits for a vault that is locked, makes way for one that is being locked, and starts again
    when that is open.

    Args:
        settings: Persist directory, binary, owners.
        announce: Receives containerd's log, line by line.
        stop: Ends it.

    Raises:
        DeniedError: The process is not root.
        ContainerdMissingError: There is no containerd binary.
        DaemonVersionError: It is too old.
        SocketPathError: The socket's path is too long for the kernel.
        InUseError: Another containerd holds the root.
        LayoutError: The layout was not initialised.
    """
    if wait_for_vault(settings, stop):
        _prepare(settings, announce).run_forever(stop, paused=VaultGuard.of(settings).is_closed)


class Supervision:
    """The same beside other work: containerd runs as long as the context lasts.

    Entering it raises what :func:`run_containerd` raises, and :class:`cas.errors.VaultLockedError`
    where the vault is locked. Afterwards it pauses while the vault is locked, and containerd is
    started again whenever it ends; if that is impossible, ``stop`` is set, and leaving raises the
    reason.

    Args:
        settings: Persist directory, binary, owners.
        log: Receives containerd's log, line by line.
        stop: Ends the wait for the first start; there is no containerd then.

    Attributes:
        on_end: Called when containerd has ended by itself; may be replaced at any time.
    """

    def __init__(
        self, settings: Settings, *, log: Callable[[str], None], stop: threading.Event
    ) -> None:
        self._settings = settings
        self._log = log
        self._stop = stop
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.on_end: Callable[[], None] = lambda: None
        self._failures = Failures(stop)

    def _tell_end(self) -> None:
        self.on_end()

    def _supervise(self, daemon: Daemon) -> None:
        paused = VaultGuard.of(self._settings).is_closed
        daemon.run_forever(self._end, on_end=self._tell_end, paused=paused)

    def __enter__(self) -> Self:
        daemon = _prepare(self._settings, self._log)
        try:
            daemon.start(self._stop)
        except InterruptedOperationError:
            return self
        self._thread = threading.Thread(
            target=self._failures.run,
            args=(partial(self._supervise, daemon),),
            name="cas-supervisor",
            daemon=True,
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        if error is None:
            self._failures.raise_first()
