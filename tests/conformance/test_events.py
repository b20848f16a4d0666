"""The event bus, on a real containerd."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.errors import DaemonUnavailableError, EventsLostError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.events import Event, EventKind
from cas.model.records import LeaseID
from tests.support.daemon import WAIT_SECONDS, connect

_TARGET = Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(b"one"), 3)
_VOLUME = "7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish also while the machine is busy: what takes long is given up and nobody told of it."""
    monkeypatch.setattr("cas.containerd.events._PUBLISH_SECONDS", WAIT_SECONDS)


@pytest.fixture
def listen(containerd: Containerd) -> Iterator[Iterator[Event]]:
    """Events of the test's namespace from now on."""
    with containerd.events.subscribe(Cancellation()) as events:
        yield events


def _told(events: Iterator[Event], count: int) -> list[tuple[str, str]]:
    return [(event.kind, event.object) for event in islice(events, count)]


def test_events_of_images_are_told_whoever_changes_them(
    containerd: Containerd, listen: Iterator[Event]
) -> None:
    """containerd tells them itself, with the time."""
    containerd.images.create("i", _TARGET, {})
    containerd.images.update_target("i", Descriptor(_TARGET.media_type, Digest.of(b"two"), 3))
    containerd.images.delete("i")
    containerd.images.delete("i")
    events = list(islice(listen, 3))
    assert [event.kind for event in events] == ["image-created", "image-updated", "image-removed"]
    assert {event.object for event in events} == {"i"}
    assert all(datetime.now(UTC) - event.time < timedelta(minutes=5) for event in events)


def test_event_of_a_deleted_blob_names_its_digest(
    containerd: Containerd, listen: Iterator[Event], lease: LeaseID
) -> None:
    """Also when somebody else than the store deletes it."""
    digest = Digest.of(b"x")
    containerd.content.put("r", lease, b"x", digest, {})
    containerd.content.delete(digest)
    assert _told(listen, 1) == [("blob-removed", str(digest))]


def test_publish_reaches_every_listener_in_order(containerd: Containerd) -> None:
    """Also those of another connection, which is as good as another process."""
    stop = Cancellation()
    with (
        containerd.events.subscribe(stop) as first,
        containerd.events.subscribe(stop) as second,
    ):
        containerd.events.publish(EventKind.VOLUME_PREPARED, [_VOLUME])
        containerd.events.publish(EventKind.VOLUME_ACTIVATED, [_VOLUME])
        wanted = [("volume-prepared", _VOLUME), ("volume-activated", _VOLUME)]
        assert _told(first, 2) == wanted
        assert _told(second, 2) == wanted


def test_publish_of_many_objects_tells_each(
    containerd: Containerd, listen: Iterator[Event]
) -> None:
    """A prune removes thousands of blobs."""
    names = [str(number) for number in range(2500)]
    containerd.events.publish(EventKind.BLOB_REMOVED, names)
    assert [event.object for event in islice(listen, 2500)] == names


def test_publish_of_nothing_tells_nothing(containerd: Containerd, listen: Iterator[Event]) -> None:
    """What was empty is not told."""
    containerd.events.publish(EventKind.BLOB_REMOVED, [])
    containerd.events.publish(EventKind.VOLUME_REMOVED, [_VOLUME])
    assert _told(listen, 1) == [("volume-removed", _VOLUME)]


def test_events_of_another_namespace_are_not_told(
    containerd: Containerd, listen: Iterator[Event]
) -> None:
    """containerd's bus is one for all of them."""
    other = containerd.in_namespace(f"{containerd.namespace}-other")
    other.images.create("other", _TARGET, {})
    other.events.publish(EventKind.VOLUME_REMOVED, ["other"])
    other.images.delete("other", sync=True)
    other.namespaces.delete(other.namespace)
    containerd.events.publish(EventKind.VOLUME_REMOVED, [_VOLUME])
    assert _told(listen, 1) == [("volume-removed", _VOLUME)]


def test_subscribe_is_ended_by_its_cancellation(containerd: Containerd) -> None:
    """Also while it waits for an event; no thread is left."""
    stop = Cancellation()
    with containerd.events.subscribe(stop) as events:
        timer = threading.Timer(0.05, stop.set)
        timer.start()
        assert list(events) == []
        timer.join()
    assert not any(thread.name == "cas-events" for thread in threading.enumerate())


def test_subscribe_by_a_listener_that_sleeps_loses_events_and_says_so(
    containerd: Containerd, listen: Iterator[Event]
) -> None:
    """Neither we nor containerd keep any number of them."""
    for _ in range(6):
        containerd.events.publish(EventKind.BLOB_REMOVED, [str(number) for number in range(1000)])
    with pytest.raises(EventsLostError, match="listen again"):
        _wait_for_the_end(listen)


def _wait_for_the_end(events: Iterator[Event]) -> None:
    """Take nothing until the backlog overflowed, then everything."""
    next(events)
    while not _has_ended():
        threading.Event().wait(0.01)
    for _ in events:
        pass


def _has_ended() -> bool:
    return not any(thread.name == "cas-events" for thread in threading.enumerate())


def test_subscribe_to_a_killed_containerd_ends_with_unavailable(
    restartable_daemon: Daemon,
) -> None:
    """A listener has to look for itself and to listen again; the new containerd tells it."""
    with connect(restartable_daemon.settings) as containerd:
        with containerd.events.subscribe(Cancellation()) as events:
            restartable_daemon.kill()
            with pytest.raises(DaemonUnavailableError):
                next(events)
        with pytest.raises(DaemonUnavailableError):
            _subscribe_and_leave(containerd)
        restartable_daemon.start()
        _until_it_works(lambda: _subscribe_and_leave(containerd))


def _subscribe_and_leave(containerd: Containerd) -> None:
    with containerd.events.subscribe(Cancellation()):
        pass


def _until_it_works(call: Callable[[], None]) -> None:
    while True:
        try:
            return call()
        except DaemonUnavailableError:
            threading.Event().wait(0.01)


def test_publish_to_a_killed_containerd_is_no_error(restartable_daemon: Daemon) -> None:
    """What happened has happened, whether it is told or not."""
    with connect(restartable_daemon.settings) as containerd:
        restartable_daemon.kill()
        containerd.events.publish(EventKind.VOLUME_REMOVED, [_VOLUME])
