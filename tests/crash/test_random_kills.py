"""SIGKILL of commands and of containerd at random moments: nothing acknowledged is lost."""

import logging
import random
import signal
import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cas.app import Case, utc_now
from cas.containerd.daemon import Daemon
from tests.support.command import Cas, CasProcess, Result, write_configuration
from tests.support.crash_scenario import Promises, Scenario, assert_whole, build_scenario
from tests.support.daemon import mounts_below
from tests.support.trees import names_below
from tests.support.waiting import wait_for

_log = logging.getLogger(__name__)

_ROUNDS = 10
_CALLS = 70
"""About as many calls to containerd does the longest command make."""
_LONGEST_PAUSE_SECONDS = 0.02
_SHARE_OF_ADDITIONS = 0.7
_KILLED = -signal.SIGKILL
_UNAVAILABLE = 8

_VICTIMS = ("none", "command", "containerd", "both")

Command = tuple[str, ...]


class _Story:
    """Commands on one store, and what the store must hold after what is known of each."""

    def __init__(self, scenario: Scenario, source: random.Random) -> None:
        self.scenario = scenario
        self.promises = Promises()
        self._source = source
        archives = [job[1] for job in scenario.jobs if job[0] == "import"]
        self._archives = dict(zip(scenario.images, archives, strict=True))

    def commands(self) -> list[Command]:
        """Everything that brings something in."""
        return [
            *(("image", "import", path) for path in self._archives.values()),
            ("blob", "ingest", *map(str, self.scenario.blobs.values())),
            *(
                ("volume", "prepare", name, "--image", image, "--activate")
                for name, image in self.scenario.volumes.items()
            ),
        ]

    def choose(self) -> Command:
        """A command that has something to do."""
        pick, promises = self._source.choice, self.promises
        missing = [command for command in self.commands() if self._is_possible(command)]
        if missing and self._source.random() < _SHARE_OF_ADDITIONS:
            return pick(missing)
        removals: list[Command] = [
            *(("volume", "rm", name) for name, wanted in promises.volumes.items() if wanted),
            *(("image", "rm", name) for name in sorted(promises.images)),
            *(("blob", "rm", digest) for digest in sorted(promises.blobs)[:2]),
        ]
        return pick([*removals, ("prune", "--force"), ("check", "--fix")])

    def begin(self, command: Command) -> None:
        """From now on, until it is acknowledged, the command may have been done or not."""
        match command:
            case ["volume", "prepare", name, *_]:
                self.promises.hear("preparing", name)
            case ["volume", "rm", name]:
                self.promises.hear("removing", name)
            case ["blob", "rm", digest]:
                self.promises.blobs.discard(digest)
            case ["image", "rm", name]:
                self.promises.images.discard(name)
            case ["prune", *_]:
                self.promises.images &= {
                    self.scenario.volumes[name]
                    for name, wanted in self.promises.volumes.items()
                    if wanted
                }

    def end(self, command: Command, result: Result) -> None:
        """The command has ended by itself."""
        # What a list of files printed before it ended is promised, too.
        if command[:2] == ("blob", "ingest"):
            self.promises.blobs |= set(result.out.split())
        if result.status:
            return
        match command:
            case ["volume", "prepare", name, *_]:
                self.promises.hear("prepared", name)
            case ["volume", "rm", name]:
                self.promises.hear("removed", name)
            case ["image", "import", _]:
                self.promises.images |= set(result.out.split())

    def _is_possible(self, command: Command) -> bool:
        """Whether an addition has something to do and what it needs is there."""
        match command:
            case ["volume", "prepare", name, "--image", image, _]:
                return image in self.promises.images and not self.promises.volumes.get(name)
            case ["image", "import", path]:
                return any(
                    self._archives[name] == path and name not in self.promises.images
                    for name in self._archives
                )
            case _:
                return self.promises.blobs != set(self.scenario.blobs)


def _content(daemon: Daemon) -> set[str]:
    """Names of everything on disk that an object of the store owns."""
    layout = daemon.settings.layout
    places = (
        layout.case / "io.containerd.content.v1.content",
        layout.case / "io.containerd.snapshotter.v1.overlayfs" / "snapshots",
        layout.stage,
        layout.unpacking,
        layout.quarantine,
        layout.volumes,
    )
    return {path for place in places for path in names_below(place)}


def _two_hours_later() -> datetime:
    """Leftovers that may still be wanted are kept for some time."""
    return utc_now() + timedelta(hours=2)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_store_after_kills_at_random_moments_is_clean_and_whole(
    number: int,
    crash_seed: int,
    restartable_daemon: Daemon,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """``check --fix`` ends clean, what was acknowledged is there, and all of it can be removed."""
    source = random.Random(f"{crash_seed}-{number}")
    daemon = restartable_daemon
    story = _Story(build_scenario(tmp_path, source), source)
    hurried = tmp_path / "hurried"
    hurried.mkdir()
    config = write_configuration(hurried, replace(daemon.settings, wait_seconds=2.0))
    cas = Cas(daemon.settings, tmp_path, capfd)
    cas("prune", "--force").assert_orderly(0)
    before = _content(daemon)
    for _ in range(_ROUNDS):
        command, victims = story.choose(), source.choice(_VICTIMS)
        story.begin(command)
        with CasProcess(config, *command) as process:
            if victims != "none" and process.wait_for_calls(source.randrange(1, _CALLS)):
                threading.Event().wait(source.uniform(0, _LONGEST_PAUSE_SECONDS))
                if victims != "containerd":
                    process.kill()
                if victims != "command":
                    daemon.kill()
            result = process.result()
        _log.warning("command=%s victims=%s status=%s", command, victims, result.status)
        result.assert_orderly(0, 3, 4, _UNAVAILABLE, _KILLED)
        story.end(command, result)
        daemon.start()
        cas("check", "--fix").assert_orderly(0)
        with Case.open(daemon.settings) as case:
            case.volumes.deactivate_all()
            assert_whole(case, story.scenario, story.promises)
            assert list(case.check.run(read_data=True)) == []
            assert list(case.backing.leases.iter_leases()) == []
            assert list(case.backing.content.iter_ingests()) == []
        assert mounts_below(daemon.settings.persist) == []
    for command in story.commands():
        story.begin(command)
        result = cas(*command)
        result.assert_orderly(0)
        story.end(command, result)
    cas("volume", "deactivate", "--all").assert_orderly(0)
    with Case.open(daemon.settings) as case:
        assert_whole(case, story.scenario, story.promises)
    cas("volume", "rm", *story.scenario.volumes).assert_orderly(0)
    cas("blob", "rm", *story.scenario.blobs).assert_orderly(0)
    cas("prune", "--force").assert_orderly(0)
    cas("check", "--read-data").assert_orderly(0)
    with Case.open(daemon.settings, clock=_two_hours_later) as case:
        for _ in range(2):  # the first leaves what could be resumed
            case.recover()
        list(case.repair.repair(case.check.run()))
    # containerd collects when it likes, and may be about to remove what it has forgotten already.
    wait_for(lambda: _content(daemon) == before)
