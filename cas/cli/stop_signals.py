"""Signals that ask a process to end in order, for commands that stay."""

__all__ = ["stop_on_signals"]

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_END = b"\0"
"""No number of a signal."""


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and Ctrl-C set; for the main thread.

    A handler in Python cannot set it: it may interrupt the very thread that waits for the event
    while that thread holds the event's lock, and then waits for itself. So a thread does.
    """
    stop = threading.Event()
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.settimeout(0)
        before = {number: signal.signal(number, _leave_to_the_thread) for number in _NUMBERS}
        descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=_listen, args=(reader, stop), name="cas-signals")
        thread.start()
        try:
            yield stop
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)
            writer.send(_END)
            thread.join()


def _leave_to_the_thread(_number: int, _frame: object) -> None:
    """Keep the kernel from doing what it does by default."""


def _listen(reader: socket.socket, stop: threading.Event) -> None:
    while (received := reader.recv(1)) != _END:
        if received[0] in _NUMBERS:
            stop.set()
