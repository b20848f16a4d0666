"""Commands that work in the vault by themselves end when somebody locks it.

They have files in it open, and so have their agents: as long as they go on it stays half locked.
"""

__all__ = ["ended_by_locking"]

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cas.errors import CasError
from cas.model.settings import Settings
from cas.store.guard import VaultGuard

_POLL_SECONDS = 0.2


@contextmanager
def ended_by_locking(settings: Settings) -> Iterator[None]:
    """Interrupt the block as Ctrl-C does when the vault is being locked; for the main thread.

    Raises:
        VaultLockedError: It was; or what failed did so while it was.
    """
    guard = VaultGuard.of(settings)
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(guard, done), name="cas-vault", daemon=True)
    try:
        # What is closed from the beginning is told by whoever is asked to write.
        if not guard.is_closed():
            watch.start()
        try:
            yield
        finally:
            done.set()
            if watch.ident is not None:
                watch.join()
    except KeyboardInterrupt:
        guard.check_open()
        raise
    except CasError as error:
        cause = guard.cause_of(error)
        if cause is error:
            raise
        raise cause from error


def _watch(guard: VaultGuard, done: threading.Event) -> None:
    closed = False
    while not closed and not done.wait(_POLL_SECONDS):
        with suppress(CasError):  # of the block's own work, if it matters
            closed = guard.is_closed()
    if closed:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
