"""Calls of a library that cannot be told how long they may take."""

__all__ = ["call_within"]

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

_Result = TypeVar("_Result")


def call_within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """Call a function in a thread of its own and give its result, or raise what it raised.

    A call that takes longer is left to itself: it ends with the process, or when it ends.

    Raises:
        TimeoutError: It took longer.
    """
    answers: SimpleQueue[tuple[_Result | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            answers.put((None, error))

    threading.Thread(target=run, name="deadline", daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # either it or the error is there
