"""Ctrl-C for this process while it waits for something.

Between two instructions of gRPC or of the interpreter it may leave a lock held for good, or a
thread that nobody waits for; neither is ours. While the main thread waits it comes out of the wait.
"""

__all__ = ["interrupt_wait"]

import signal
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from tests.support.waiting import wait_for

_LOOKS = 5
_PAUSE_SECONDS = 0.01


def interrupt_wait(begun: Callable[[], object] = lambda: True) -> None:
    """Interrupt the main thread once it stands still; called by another one.

    Args:
        begun: Whether it has come to what is to be interrupted.
    """
    main = threading.main_thread()
    assert main.ident is not None
    wait_for(lambda: begun() and _stands_still(main))
    signal.pthread_kill(main.ident, signal.SIGINT)


def _stands_still(thread: threading.Thread) -> bool:
    """Whether it sleeps at one place for some time, in which it could have gone on."""
    pause = threading.Event()
    places = [_place(thread)]
    for _ in range(_LOOKS):
        pause.wait(_PAUSE_SECONDS)
        places.append(_place(thread))
    return all(one is not None and one == other for one, other in pairwise(places))


def _place(thread: threading.Thread) -> tuple[int, int] | None:
    """The frame and the instruction where it sleeps; None if it runs or wants to."""
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    assert thread.ident is not None
    frame = sys._current_frames()[thread.ident]
    return (id(frame), frame.f_lasti) if stat.rpartition(")")[2].split()[0] == "S" else None
