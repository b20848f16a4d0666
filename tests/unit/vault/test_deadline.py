"""Calls that may hang."""

import threading

import pytest

from cas.vault.deadline import call_within


def test_call_in_time_gives_its_result_or_its_error() -> None:
    """As if it had been called directly."""

    def fail() -> None:
        raise KeyError("told")

    assert call_within(60, lambda: 7) == 7
    with pytest.raises(KeyError, match="told"):
        call_within(60, fail)


def test_call_that_hangs_is_given_up() -> None:
    """The caller goes on, and what comes late is nobody's."""
    over = threading.Event()
    try:
        with pytest.raises(TimeoutError):
            call_within(0.01, over.wait)
    finally:
        over.set()
