"""Every call that streams, and a caller that is gone in the middle of it or takes nothing."""

from pathlib import Path
from typing import Any

from cas._gen.cas.v1 import store_pb2
from cas.app import Case
from cas.rpc.server.registry import Patience
from tests.support.every_call import METHODS, REQUESTS, begin, stock
from tests.support.rpc import Service, connect, falling_silent, serve
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

_SENDING = sorted(name for name in REQUESTS if METHODS[name].client_streaming)
_TELLING = sorted(name for name in REQUESTS if METHODS[name].server_streaming)
_KEY = (("cas-call", "vanished"),)


def _own(service: Service, channel: Any) -> Service:
    return Service(service.case, service.server, channel, service.socket, service.allowed)


def _await_undone(service: Service) -> None:
    service.store.Wait(store_pb2.WaitRequest(call=_KEY[0][1]), timeout=60)
    wait_for(lambda: service.server.running == 0)


def test_caller_that_vanishes_in_the_middle_of_any_stream_leaves_nothing(
    service: Service,
) -> None:
    """With its connection, when it has taken one answer, or sent all but the end of a request."""
    assert {"Blobs.Upload", "Images.Upload"} <= {*_SENDING}
    assert len(_TELLING) > 10
    for name in _TELLING:
        with connect(service.socket) as channel:
            call = begin(_own(service, channel), name, stock(service), metadata=_KEY)
            next(iter(call), None)
        _await_undone(service)
    for name in _SENDING:
        with falling_silent() as silent, connect(service.socket) as channel:
            own = _own(service, channel)
            stub = getattr(own, METHODS[name].containing_service.name.lower())
            sent = silent(*list(REQUESTS[name](stock(service)))[:-1])
            call = getattr(stub, METHODS[name].name).future(sent, metadata=_KEY)
            wait_for(lambda: service.server.running == 1)
            assert not call.done()
        _await_undone(service)
    assert_nothing_left(service.case.backing)


def test_caller_that_takes_no_answer_of_any_stream_keeps_no_call_running(
    case: Case, allowed: Path
) -> None:
    """All streams at once, none of them read: what was asked for is done, and the calls end."""
    with serve(case, allowed, patience=Patience(stalled=2, wanted=1)) as service:
        held = stock(service)
        # Pulls have a registry to wait for, which is not there.
        calls = [begin(service, name, held) for name in _TELLING if not name.endswith(".Pull")]
        wait_for(lambda: service.server.running == 0)
        assert service.store.Version(store_pb2.VersionRequest(), timeout=60).cas
        for call in calls:
            call.cancel()
    assert_nothing_left(case.backing)
