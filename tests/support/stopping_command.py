"""``cas`` in a process that stops itself somewhere, as SIGSTOP does, so that nobody has to hurry.

A signal that is sent before it is let go on meets it in that very place.
"""

__all__ = ["AT_CALL", "AT_CHANGE", "STOPS"]

import os
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from cas.cli.main import main
from cas.fsops.effects import Effect, observed
from tests.support.steps import calls_announced

AT_CALL = "STOPPING_COMMAND_AT_CALL"
"""The variable of the environment with the number of a call to containerd."""
AT_CHANGE = "STOPPING_COMMAND_AT_CHANGE"
"""The one with the end of a path: the first change of it once it is there."""
STOPS = "stops itself\n"
"""What it says before on standard error."""


class _Stop:
    """Stops the process when it is told the k-th time, and never again."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self, _where: str) -> None:
        self._left -= 1
        if self._left == 0:
            print(STOPS, end="", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)


def _stopping_at_change(end: str) -> AbstractContextManager[None]:
    stop = _Stop(1)

    def heed(_kind: Effect, path: str) -> None:
        if path.endswith(end) and Path(path).exists():
            stop(path)

    return observed(heed)


if __name__ == "__main__":
    if AT_CHANGE in os.environ:
        stopping = _stopping_at_change(os.environ[AT_CHANGE])
    else:
        stopping = calls_announced(_Stop(int(os.environ[AT_CALL])))
    with stopping:
        sys.exit(main())
