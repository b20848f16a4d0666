"""Trying again."""

import pytest

from cas.datastores.retry import Pace, RetryPolicy, is_worth_retrying, pause_seconds, retrying
from cas.errors import (
    AuthenticationError,
    InterruptedOperationError,
    NoSpaceError,
    RateLimitedError,
    SourceChangedError,
    SourceProtocolError,
    SourceUnavailableError,
    StorageError,
)
from cas.model.cancellation import Cancellation

POLICY = RetryPolicy(attempts=4, first_seconds=2, longest_seconds=10)


class _Failing:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def _pauses() -> tuple[list[float], Pace]:
    pauses: list[float] = []
    return pauses, Pace(lambda seconds, _: pauses.append(seconds))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (SourceUnavailableError("x"), True),
        (RateLimitedError("x"), True),
        (SourceChangedError("x"), True),
        (SourceProtocolError("x"), False),
        (AuthenticationError("x"), False),
        (NoSpaceError("x"), False),
        (StorageError("x"), False),
        (InterruptedOperationError("x"), False),
        (ValueError("x"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_what_is_temporary_is_worth_retrying(error: BaseException, again: bool) -> None:
    """A full disk, a refusal or a defect is not mended by asking again."""
    assert is_worth_retrying(error) is again


def test_pauses_grow_and_differ_and_stay_below_their_limit() -> None:
    """Many devices that lost one server do not come back together."""
    error = SourceUnavailableError("x")
    for failures, most in enumerate([2, 4, 8, 10, 10], start=1):
        pauses = {pause_seconds(POLICY, failures, error) for _ in range(50)}
        assert all(most / 2 <= pause <= most for pause in pauses)
        assert len(pauses) > 1


def test_pause_that_was_asked_for_is_the_shortest() -> None:
    """Longer than our own limit too."""
    assert pause_seconds(POLICY, 1, RateLimitedError("x", retry_after_seconds=99.0)) == 99
    assert pause_seconds(POLICY, 1, RateLimitedError("x", retry_after_seconds=0.0)) >= 1


def test_retrying_ends_with_success() -> None:
    """One pause per failure."""
    pauses, pace = _pauses()
    function = _Failing(SourceUnavailableError("1"), SourceUnavailableError("2"))

    assert retrying(POLICY, pace)(function) == "done"
    assert len(pauses) == 2


def test_retrying_ends_after_so_many_attempts_with_the_last_error() -> None:
    """As it was, not wrapped."""
    pauses, pace = _pauses()
    function = _Failing(*(SourceUnavailableError(str(n)) for n in range(9)))

    with pytest.raises(SourceUnavailableError, match="3"):
        retrying(POLICY, pace)(function)
    assert function.calls == 4
    assert len(pauses) == 3


def test_retrying_that_is_told_of_progress_does_not_count_it() -> None:
    """The caller's count decides."""
    _, pace = _pauses()
    function = _Failing(*(SourceUnavailableError(str(n)) for n in range(20)))

    assert retrying(POLICY, pace, failures=lambda: 1)(function) == "done"


def test_pause_of_the_real_clock_ends_when_the_work_is_cancelled() -> None:
    """Nobody waits out a back-off in vain."""
    cancel = Cancellation()
    cancel.set()

    Pace().sleep(60, cancel)
    Pace().sleep(0, None)
