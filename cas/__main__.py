"""``cas`` and ``python -m cas``: from the first moment on, Ctrl-C ends without a traceback.

Loading the command takes a while, in which nothing is begun that would have to be undone.
"""

__all__ = ["main"]

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def _leave(_signal: int, _frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)


def main() -> int:
    """Run the ``cas`` command; see :func:`cas.cli.main.main`."""
    from cas.cli.main import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
