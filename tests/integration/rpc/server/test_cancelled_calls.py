"""Callers that change their mind: whatever the method, its work stops soon and leaves nothing."""

import logging
import sys
from types import FrameType

import pytest

from cas._gen.cas.v1 import store_pb2
from cas.containerd import snapshots, transport
from cas.containerd.daemon import Daemon
from tests.support.daemon import WAIT_SECONDS
from tests.support.every_call import METHODS, Stock, begin, stock
from tests.support.frozen import frozen
from tests.support.rpc import Service, recover_until_nothing_is_left
from tests.support.waiting import wait_for

_ALONE = {"Store.Version", "Store.Wait", "Store.Events", "Volumes.ListForeign"}
_ASKING = sorted(METHODS.keys() - _ALONE)
"""Those that work, and ask containerd; ``test_interrupted_calls.py`` ends listening for events."""
_NAMES = 20
_UNDOING = 4
"""Calls to containerd: the one under way, those that undo what was begun, and what tells of it."""


@pytest.fixture
def held(mortal_service: Service) -> Stock:
    """A store with so many objects that nobody looks at all of them in a few calls."""
    held = stock(mortal_service)
    images = mortal_service.case.images
    for number in range(_NAMES - sum(1 for _ in images.iter_images())):
        images.tag(held.image.name, f"example.com/many:{number}")
    return held


@pytest.mark.parametrize("name", _ASKING)
def test_call_that_is_cancelled_asks_containerd_for_no_more(
    mortal_service: Service,
    mortal_daemon: Daemon,
    held: Stock,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """But for what undoes what was begun; and then nothing is left of it."""
    calls = mortal_service.server.calls
    caplog.set_level(logging.DEBUG, "cas.containerd.translation")
    with frozen(mortal_daemon):
        call = begin(mortal_service, name, held, metadata=(("cas-call", name),))
        wait_for(lambda: calls.of_key(name))
        wait_for(_somebody_asks_containerd)
        call.cancel()
        wait_for(lambda: all(each.cancellation.is_set() for each in calls.of_key(name)))
        caplog.clear()
    mortal_service.store.Wait(store_pb2.WaitRequest(call=name))

    asked = [
        record.getMessage() for record in caplog.records if record.name.endswith("translation")
    ]
    assert len(asked) <= _UNDOING, asked
    # What it was asked for when it stood still containerd may make all the same: a service that
    # has not heard recovers by itself.
    recover_until_nothing_is_left(mortal_service)


def test_measuring_ends_with_its_caller_while_containerd_goes_on_with_it(
    mortal_service: Service,
    mortal_daemon: Daemon,
    held: Stock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It changes nothing, so that nobody waits to know what became of it."""
    monkeypatch.setattr("cas.containerd.patience._UNDER_WAY_SECONDS", 10 * WAIT_SECONDS)
    with frozen(mortal_daemon):
        call = begin(mortal_service, "Volumes.Usage", held)
        wait_for(lambda: _somebody_stands_in(snapshots.__file__, {"usage"}))
        call.cancel()
        wait_for(lambda: not mortal_service.server.running)


def _somebody_asks_containerd() -> bool:
    """Whether a thread waits for the answer to a call."""
    return _somebody_stands_in(transport.__file__, {"unary", "stream"})


def _somebody_stands_in(file: str, functions: set[str]) -> bool:
    """Whether a thread is within one of these functions."""
    return any(_stands_in(frame, file, functions) for frame in sys._current_frames().values())


def _stands_in(frame: FrameType | None, file: str, functions: set[str]) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_filename == file and code.co_name in functions:
            return True
        frame = frame.f_back
    return False
