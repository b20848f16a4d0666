"""The flag that stops work in other threads."""

import pytest

from cas.errors import InterruptedOperationError
from cas.model.cancellation import Cancellation


def test_cancellation_new_lets_work_go_on() -> None:
    """Nobody asked to stop."""
    cancel = Cancellation()
    cancel.check()
    assert not cancel.is_set()


def test_cancellation_set_stops_work_for_good() -> None:
    """Every later look tells; setting it again changes nothing."""
    cancel = Cancellation()
    cancel.set()
    cancel.set()
    assert cancel.is_set()
    for _ in range(2):
        with pytest.raises(InterruptedOperationError):
            cancel.check()
