"""``cas`` and ``python -m cas``: from the first moment to the last, Ctrl-C makes no traceback.

Loading the command takes a while, and so does the end of the interpreter; there is nothing then
that would have to be undone.
"""

__all__ = ["main"]

import os
import signal
import sys
from types import FrameType

_INTERRUPTED = 130


def _leave(_signal: int, _frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


def _leave_when_asked() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(signal.getsignal(number)):  # whoever starts us deaf wants us deaf
            signal.signal(number, _leave)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)


def main() -> int:
    """Run the ``cas`` command; see :func:`cas.cli.main.main`."""
    from cas.cli.main import main as command

    try:
        status = command()
        _leave_when_asked()
    except KeyboardInterrupt:  # between the two
        return _INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
