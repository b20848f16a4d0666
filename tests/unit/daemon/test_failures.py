"""Threads of the service that end with an error do not end in silence."""

import threading

import pytest

from cas.daemon.failures import Failures
from cas.daemon.recovery import RecoveryRunner
from cas.errors import InternalError, StorageError

_SECONDS = 30


def _recover_with(error: Exception) -> tuple[threading.Event, Failures, list[str]]:
    """Let a recovery fail; gives what was told of it."""
    stop, ends = threading.Event(), list[str]()
    failures = Failures(stop)

    def recover() -> None:
        raise error

    runner = RecoveryRunner(recover, ends.append, failures=failures)
    runner.request()
    if not isinstance(error, StorageError):
        assert stop.wait(_SECONDS)
    else:
        assert runner.wait_for_first(_SECONDS)
    runner.close(_SECONDS)
    return stop, failures, ends


def test_recovery_that_ends_with_a_defect_ends_the_service() -> None:
    """The reason is told at the end, with what it came from."""
    cause = ZeroDivisionError("never")
    _, failures, _ = _recover_with(cause)
    with pytest.raises(InternalError, match=r"cas-recovery.*ZeroDivisionError: never") as caught:
        failures.raise_first()
    assert caught.value.__cause__ is cause


def test_recovery_that_fails_leaves_the_service_alone() -> None:
    """An error of the library is for the log and for the next run."""
    stop, failures, ends = _recover_with(StorageError("cannot"))
    assert not stop.is_set()
    assert ends == ["failed"]
    failures.raise_first()


def test_error_of_the_library_is_kept_as_it_is_and_the_first_wins() -> None:
    """What follows from it is of no interest."""
    stop = threading.Event()
    failures = Failures(stop)

    def fail(error: Exception) -> None:
        raise error

    first = StorageError("first")
    failures.run(lambda: fail(first))
    failures.run(lambda: fail(KeyError("second")))
    assert stop.is_set()
    with pytest.raises(StorageError) as caught:
        failures.raise_first()
    assert caught.value is first
