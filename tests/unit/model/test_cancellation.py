"""The flag that stops work in other threads."""

import threading

import pytest

from cas.errors import InterruptedOperationError
from cas.model.cancellation import Cancellation, JointCancellation


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


@pytest.mark.parametrize("joint", [False, True])
def test_cancellation_tells_listeners_that_it_was_set(joint: bool) -> None:
    """Once asked, at once when it was set before, and not after their block."""
    told: list[str] = []
    outer = Cancellation()
    cancel = JointCancellation(outer) if joint else outer

    with cancel.notifying(lambda: told.append("during")):
        assert told == []
        outer.set()
        assert told == ["during"]
    with cancel.notifying(lambda: told.append("before")):
        assert set(told) == {"during", "before"}
    told.clear()
    outer.set()

    assert told == []


def test_joint_cancellation_tells_listeners_of_its_own_end_only() -> None:
    """The other one's listeners hear nothing."""
    told: list[str] = []
    outer = Cancellation()
    cancel = JointCancellation(outer)

    with (
        outer.notifying(lambda: told.append("outer")),
        cancel.notifying(lambda: told.append("own")),
    ):
        cancel.set()

    assert told == ["own"]


def test_wait_ends_with_the_time_or_with_the_flag() -> None:
    """Whichever is first; the answer tells which."""
    cancel = Cancellation()
    assert not cancel.wait(0.001)
    timer = threading.Timer(0.01, cancel.set)
    timer.start()
    assert cancel.wait(60)
    timer.join()
