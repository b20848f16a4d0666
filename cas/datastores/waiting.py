"""Waits for a datastore that end: in time, or with the operation that they are for.

The idle limit of a socket begins anew with every byte, so that a peer could send the headers of an
answer, or what frames its body, for ever; the limits here do not.
"""

__all__ = ["awaited", "limited", "watched_reads"]

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TypeVar

from cas.model.cancellation import check_operation, current_operation

_Result = TypeVar("_Result")


@contextmanager
def limited(end: Callable[[], None], seconds: float | None = None) -> Iterator[None]:
    """End what the block waits for when it takes too long, or when the operation is stopped.

    Args:
        end: Makes a wait in another thread fail; may be called more than once, never raises.
        seconds: That the block may take; None for no limit of its own.

    Raises:
        InterruptedOperationError: This context's operation was stopped.
        TimeoutError: It took longer; whatever came of the wait that was ended.
    """
    over = threading.Event()

    def late() -> None:
        over.set()
        end()

    timer = threading.Timer(seconds or 0, late)
    timer.daemon = True
    operation = current_operation()
    if seconds is not None:
        timer.start()
    try:
        with operation.notifying(end) if operation is not None else nullcontext():
            yield
    finally:
        timer.cancel()
        check_operation()
        if over.is_set():
            message = "it took too long as a whole"
            raise TimeoutError(message)


def watched_reads(
    read: Callable[[], bytes], end: Callable[[], None], seconds: float
) -> Generator[bytes, None, None]:
    """Yield what a reader gives, as long as no read takes more than ``seconds``.

    One that does is ended between one and two times ``seconds`` after its begin.

    Raises:
        TimeoutError: A read took longer.
    """
    done, over = threading.Event(), threading.Event()
    pending = count = 0

    def look() -> None:
        seen = 0
        while not done.wait(seconds):
            if pending and pending == seen:
                over.set()
                end()
                return
            seen = pending

    threading.Thread(target=look, daemon=True).start()
    try:
        while True:
            pending = count = count + 1
            try:
                chunk = read()
            finally:
                pending = 0
                if over.is_set():
                    message = "one step of it took too long"
                    raise TimeoutError(message)
            if not chunk:
                return
            yield chunk
    finally:
        done.set()


def awaited(
    work: Callable[[], _Result], discard: Callable[[_Result], None], seconds: float | None
) -> _Result:
    """Wait for what nobody can end, such as a look-up of a name, no longer than it is wanted.

    It is done in a thread of its own, which is left to itself then.

    Args:
        work: Gives the result, or raises.
        discard: Takes a result that nobody waits for any more.
        seconds: That it may take; None for no limit.

    Raises:
        InterruptedOperationError: This context's operation was stopped.
        TimeoutError: It took longer.
    """
    future: Future[_Result] = Future()
    threading.Thread(target=_settle, args=(future, work), daemon=True).start()
    over = threading.Event()
    future.add_done_callback(lambda _: over.set())
    operation = current_operation()
    with operation.notifying(over.set) if operation is not None else nullcontext():
        over.wait(seconds)
    if future.done():
        return future.result()
    future.add_done_callback(partial(_drop, discard))
    check_operation()
    message = "it took too long as a whole"
    raise TimeoutError(message)


def _drop(discard: Callable[[_Result], None], future: Future[_Result]) -> None:
    if future.exception() is None:
        discard(future.result())


def _settle(future: Future[_Result], work: Callable[[], _Result]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - raised by whoever waits
        future.set_exception(error)
    else:
        future.set_result(result)
