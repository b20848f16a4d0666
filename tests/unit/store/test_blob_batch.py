"""Several steps at once: order of levels, first failure, stop."""

import threading
import time

import pytest

from cas.errors import DigestMismatchError, InterruptedOperationError
from cas.model.cancellation import Cancellation, JointCancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.store.content.blob_batch import BlobBatch
from cas.store.image.document_walk import PlannedBlob

PATIENCE_SECONDS = 120.0


def planned(level: int, number: int) -> PlannedBlob:
    return PlannedBlob(Descriptor("text/plain", Digest.of(b"%d" % number), 1), {}, level)


def test_by_level_runs_parents_after_all_children() -> None:
    """A level begins only when the one below has ended."""
    blobs = [planned(level, level * 10 + number) for level in range(3) for number in range(5)]
    done: list[int] = []

    def step(blob: PlannedBlob, _: Cancellation) -> None:
        assert [each for each in done if each > blob.level] == []
        assert done.count(blob.level - 1) == 5 or blob.level == 0
        done.append(blob.level)

    BlobBatch(3, None).by_level(blobs, step)
    assert len(done) == 15


def test_run_failure_stops_the_others_and_is_the_one_raised() -> None:
    """Steps at work see the stop; the error of the one that failed comes out, not theirs."""
    waiting = threading.Barrier(3)

    def step(number: int, cancel: Cancellation) -> None:
        waiting.wait(PATIENCE_SECONDS)
        if number == 1:
            raise DigestMismatchError("the first")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not cancel.is_set():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        cancel.check()

    with pytest.raises(DigestMismatchError, match="the first"):
        BlobBatch(3, None).run(range(3), step)


def test_run_failure_leaves_later_items_alone() -> None:
    """What had not begun never begins, and the caller's own flag is not touched."""
    begun: list[int] = []
    caller = Cancellation()

    def step(number: int, _: Cancellation) -> None:
        begun.append(number)
        raise DigestMismatchError("broken")

    with pytest.raises(DigestMismatchError):
        BlobBatch(1, caller).run(range(100), step)
    assert len(begun) < 100
    assert not caller.is_set()


def test_run_stopped_by_the_caller_is_interrupted() -> None:
    """The caller's flag reaches every step."""
    caller = Cancellation()

    def step(number: int, cancel: Cancellation) -> None:
        caller.set()
        cancel.check()

    with pytest.raises(InterruptedOperationError):
        BlobBatch(2, caller).run(range(4), step)


def test_run_programming_error_comes_out() -> None:
    """Errors that nobody foresaw are not swallowed."""

    def step(number: int, _: Cancellation) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        BlobBatch(2, None).run(range(2), step)


def test_joint_cancellation_sees_both_flags() -> None:
    """It is set by either, and never sets the other."""
    caller = Cancellation()
    joint = JointCancellation(caller)
    joint.check()
    joint.set()
    assert not caller.is_set()
    other = JointCancellation(caller)
    caller.set()
    assert other.is_set()
    with pytest.raises(InterruptedOperationError):
        other.check()
