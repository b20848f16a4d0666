"""Processes that die between two changes of the file system."""

__all__ = ["kill_at"]

import os
from collections.abc import Callable
from contextlib import suppress

from cas.fsops.effects import Effect, observed


def kill_at(
    number: int, action: Callable[[], object], *, last: Callable[[], object] = lambda: None
) -> bool:
    """Run ``action`` in a child that dies before its change ``number``; False if it has fewer.

    Args:
        number: Of changes that it makes.
        action: What it does.
        last: What happens right before it dies.
    """
    child = os.fork()
    if child == 0:
        left = number

        def die(kind: Effect, path: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                last()
                os._exit(77)

        with suppress(BaseException), observed(die):
            action()
            os._exit(0)
        os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 77), "the action failed in the child"
    return status == 77
