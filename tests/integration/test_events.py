"""What happens in the store is told to listeners, whichever process does it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.events import EventKind
from cas.model.settings import Settings
from tests.support.command import Result, write_configuration
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import layered_image
from tests.support.volumes import volume_name

_LAST = (EventKind.VOLUME_REMOVED, "the last event of the test")
_PATIENT_COMMAND = f"""
import sys
from cas.cli.main import main
from cas.containerd import events
events._PUBLISH_SECONDS = {WAIT_SECONDS}
sys.exit(main(sys.argv[1:]))
"""
"""The command on a machine that may be busy, where it would give up telling an event."""


class _Listener:
    """Hears of everything that commands in other processes do."""

    def __init__(self, case: Case, config: Path) -> None:
        self.case = case
        self._config = config
        self.told: list[tuple[EventKind, str]] = []

    @contextmanager
    def hears(self) -> Iterator[None]:
        """Collect what is told in this context."""
        self.told = []
        with self.case.events.subscribe(Cancellation()) as events:
            yield
            self.case.events.publish(_LAST[0], [_LAST[1]])
            pairs = ((event.kind, event.object) for event in events)
            self.told += iter(pairs.__next__, _LAST)

    def run(self, *arguments: object) -> str:
        """Run a command to its end, in a process of its own."""
        words = ["--config", str(self._config), *map(str, arguments)]
        done = subprocess.run(
            [sys.executable, "-c", _PATIENT_COMMAND, *words],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        Result(done.returncode, done.stdout, done.stderr).assert_orderly(0)
        return done.stdout


@pytest.fixture
def listener(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[_Listener]:
    """On the store of the test."""
    # The last event must come also while the machine is busy.
    monkeypatch.setattr("cas.containerd.events._PUBLISH_SECONDS", WAIT_SECONDS)
    with Case.open(settings) as case:
        yield _Listener(case, write_configuration(tmp_path, settings))


@pytest.mark.slow
def test_events_of_a_volume_tell_changes_and_no_repetitions(
    listener: _Listener, tmp_path: Path
) -> None:
    """Each step of its life is told once, and a call that changes nothing tells nothing."""
    image = layered_image(2).named("docker.io/library/two:1")
    archive = image.write_oci_tar(tmp_path / "image.tar")
    name = str(volume_name())
    with listener.hears():
        listener.run("image", "import", archive)
        for _ in range(2):
            listener.run("volume", "prepare", name, "--image", image.name, "--activate")
        for command in ("deactivate", "activate"):
            for _ in range(2):
                listener.run("volume", command, name)
        listener.run("volume", "deactivate", name)
        for command in ("create", "rollback", "rm --ignore"):
            listener.run("volume", "snapshot", *command.split(), name, "--snapshot", "one")
        listener.run("volume", "snapshot", "rm", "--ignore", name, "--snapshot", "one")
        listener.run("volume", "rm", name)
        listener.run("image", "rm", image.name)
    assert [event for event in listener.told if event[0] is not EventKind.IMAGE_UPDATED] == [
        (EventKind.IMAGE_CREATED, image.name),
        (EventKind.VOLUME_PREPARED, name),
        (EventKind.VOLUME_ACTIVATED, name),
        (EventKind.VOLUME_DEACTIVATED, name),
        (EventKind.VOLUME_ACTIVATED, name),
        (EventKind.VOLUME_DEACTIVATED, name),
        (EventKind.VOLUME_SNAPSHOT_CREATED, name),
        (EventKind.VOLUME_ROLLED_BACK, name),
        (EventKind.VOLUME_SNAPSHOT_REMOVED, name),
        (EventKind.VOLUME_REMOVED, name),
        (EventKind.IMAGE_REMOVED, image.name),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("removal", ["rm", "prune --force --filter until=0s"])
def test_event_of_a_removed_blob_comes_however_it_is_removed(
    listener: _Listener, tmp_path: Path, removal: str
) -> None:
    """containerd itself tells only of what is deleted, not of what it collects."""
    (tmp_path / "blob").write_text(removal)
    digest = Digest.of(removal.encode())
    listener.run("blob", "ingest", tmp_path / "blob")
    verb, *options = removal.split()
    with listener.hears():
        listener.run("blob", verb, *options, *([digest] if verb == "rm" else []))
    assert listener.told.count((EventKind.BLOB_REMOVED, str(digest))) == 1


def test_removal_that_nobody_follows_to_its_end_tells_of_what_is_gone(listener: _Listener) -> None:
    """As when the listener of its outcomes went away."""
    blobs = listener.case.blobs
    digests = [blobs.ingest_stream(BytesIO(content)).digest for content in (b"one", b"two")]
    with listener.hears():
        assert next(blobs.remove_many(digests)) == (digests[0], True)
    assert (EventKind.BLOB_REMOVED, str(digests[0])) in listener.told


def test_listener_waits_longer_than_an_event_may_take_to_be_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is slow for a moment loses an event at most, and no listener."""
    monkeypatch.setattr("cas.containerd.events._PUBLISH_SECONDS", 0.0)
    cancel = Cancellation()
    with Case.open(settings) as case, case.events.subscribe(cancel) as events:
        case.events.publish(_LAST[0], [_LAST[1]])
        cancel.set()
        assert list(events) == []
