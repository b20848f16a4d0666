"""Trying again: what is temporary only, with growing, random pauses, a bounded number of times."""

__all__ = ["Pace", "RetryPolicy", "is_worth_retrying", "pause_seconds", "retrying"]

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import tenacity

from cas.errors import CasError, InterruptedOperationError
from cas.model.cancellation import Cancellation, current_operation

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast.

    Args:
        attempts: In a row that brought nothing, the first one included.
        first_seconds: Pause after the first failure, doubled after each further one.
        longest_seconds: No pause of our own is longer.
        longest_wait_seconds: A datastore that asks for a longer pause ends the attempts.
    """

    attempts: int = 7
    first_seconds: float = 1.0
    longest_seconds: float = 60.0
    longest_wait_seconds: float = 900.0


def _sleep(seconds: float, cancellation: Cancellation | None) -> None:
    if cancellation is None:
        time.sleep(seconds)
    else:
        cancellation.wait(seconds)


@dataclass(frozen=True, slots=True)
class Pace:
    """The passing of time, so that tests need not wait.

    Args:
        sleep: Pauses for seconds; given the flag that ends the pause early, if there is one.
        monotonic: Seconds on a clock that only goes forward.
    """

    sleep: Callable[[float, Cancellation | None], object] = lambda seconds, cancel: (
        cancel.wait(seconds) if cancel else time.sleep(seconds)
    )
    monotonic: Callable[[], float] = time.monotonic


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same call may succeed later, and nobody asked to stop."""
    return (
        isinstance(error, CasError)
        and error.temporary
        and not isinstance(error, InterruptedOperationError)
    )


def pause_seconds(policy: RetryPolicy, failures: int, error: BaseException | None) -> float:
    """How long to wait after so many failures in a row.

    At least as long as the datastore asked for; beyond that a random part of a time that doubles,
    so that many devices that lost a server do not come back at once.
    """
    most = min(policy.longest_seconds, policy.first_seconds * 2.0 ** (failures - 1))
    return max(random.uniform(most / 2, most), _asked_for(error))  # noqa: S311 - no secret


def _asked_for(error: BaseException | None) -> float:
    details = error.details if isinstance(error, CasError) else {}
    asked = details.get("retry_after_seconds")
    return float(asked) if isinstance(asked, int | float) else 0.0


def retrying(
    policy: RetryPolicy,
    pace: Pace,
    *,
    cancellation: Cancellation | None = None,
    failures: Callable[[], int] | None = None,
) -> tenacity.Retrying:
    """Make the loop: call the result with a function; the last error comes out as it is.

    Args:
        policy: Limits.
        pace: Time.
        cancellation: Ends a pause and the attempts; the function itself has to look at it. None
            takes that of this context's operation.
        failures: Failures in a row so far, asked after each; by default all of them count.
    """

    def count(state: tenacity.RetryCallState) -> int:
        return failures() if failures is not None else state.attempt_number

    def error(state: tenacity.RetryCallState) -> BaseException | None:
        return state.outcome.exception() if state.outcome is not None else None

    stop = current_operation() if cancellation is None else cancellation

    def sleep(seconds: float) -> None:
        pace.sleep(seconds, stop)
        if stop is not None:
            stop.check()

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_worth_retrying),
        stop=lambda state: (
            count(state) >= policy.attempts
            or _asked_for(error(state)) > policy.longest_wait_seconds
        ),
        wait=lambda state: pause_seconds(policy, count(state), error(state)),
        sleep=sleep,
        before_sleep=lambda state: _log.info(
            "datastore tried again error=%s seconds=%.1f", error(state), state.upcoming_sleep
        ),
        reraise=True,
    )
