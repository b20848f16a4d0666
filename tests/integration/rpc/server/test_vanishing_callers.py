"""Every call that streams, and a caller that is gone in the middle of it or takes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cas._gen.cas.v1 import store_pb2
from cas.app import Case
from tests.support.every_call import METHODS, REQUESTS, begin, stock
from tests.support.rpc import PATIENT, Service, connect, falling_silent, serve
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

_SENDING = sorted(name for name in REQUESTS if METHODS[name].client_streaming)
_TELLING = sorted(name for name in REQUESTS if METHODS[name].server_streaming)
_LASTING = {"Blobs.Pull", "Images.Pull", "Store.Events"}
"""Those that have a registry to wait for, which is not there, and the one that goes on for ever."""
_KEY = (("cas-call", "vanished"),)


class _Ended:
    """Notes which calls came to their end."""

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def call_began(self, method: str) -> None:
        """Not yet."""

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        self.methods.add(method)


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
    ended = _Ended()
    patience = replace(PATIENT, stalled=0.5)
    with serve(case, allowed, patience=patience, observer=ended) as service:
        held = stock(service)
        calls = {name: begin(service, name, held) for name in _TELLING if name not in _LASTING}
        wait_for(lambda: ended.methods == {f"/cas.v1.{name.replace('.', '/')}" for name in calls})
        assert service.store.Version(store_pb2.VersionRequest(), timeout=60).cas
        for call in calls.values():
            call.cancel()
    assert_nothing_left(case.backing)
