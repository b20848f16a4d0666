"""SIGKILL of any process of a pull, at any stage: what was synced is not fetched again."""

import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName, image_uuid
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support import pull_worker
from tests.support.command import CasProcess, write_configuration
from tests.support.forked import exit_status
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import Line, resource
from tests.support.images import BuiltImage, build_image
from tests.support.layers import file
from tests.support.pull_worker import Kill, agents_of, has_ended
from tests.support.stores import own_blobs, random_bytes
from tests.support.waiting import wait_for

MIB = 1024 * 1024
SYNC_BYTES = MIB
CUTS = (5 * MIB, 3 * MIB)
"""Bytes that come before the first kill, and after it before the second."""
ROUNDS = 6
MOST_STEPS = 120
"""About as many steps as the pull of such an image has."""


@pytest.fixture
def config(pull_settings: Settings, tmp_path: Path) -> Path:
    """The configuration of a command that syncs often."""
    path = write_configuration(tmp_path, pull_settings)
    with path.open("a") as text:
        text.write(f'[download]\nsync_bytes = {SYNC_BYTES}\nhosts_directory = "{tmp_path}/none"\n')
    return path


def image_of(size: int) -> BuiltImage:
    """An image of one layer that does not compress, and a small one."""
    return build_image([[file("data", random_bytes(size))], [file("small", b"x")]])


def synced_bytes(path: Path) -> int:
    """What the record beside a partial file says of it."""
    try:
        return int(json.loads(path.read_bytes())["record"]["synced"])
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["command", "downloader"])
def test_download_killed_goes_on_where_it_was_synced(
    victim: str, config: Path, pull_settings: Settings, registry: HostileRegistry
) -> None:
    """The server is asked for nothing that was on the disk for certain; the image ends whole."""
    image = image_of(12 * MIB)
    reference = registry.publish(image)
    layer = image.layers[0]
    cuts = [resource(layer.blob, etag=None, cut_after=cut, then=Line.hold) for cut in CUTS]
    path = registry.behave(layer.digest, *cuts, resource(layer.blob, etag=None))
    name = TransferName(image_uuid(reference), Digest.parse(layer.digest))
    record = pull_settings.layout.download(name).with_name(f"{name}.progress")
    begun = [0]

    for number in range(len(CUTS)):
        with CasProcess(config, "image", "pull", reference) as process:
            wait_for(lambda: synced_bytes(record) > begun[-1])
            agents = agents_of(process.pid)
            os.kill(process.pid if victim == "command" else agents[victim], signal.SIGKILL)
            process.result().assert_orderly(-signal.SIGKILL if victim == "command" else 8)
        wait_for(lambda: all(map(has_ended, agents.values())))  # noqa: B023
        wait_for(lambda: len(registry.asked(path)) == number + 1)  # noqa: B023
        begun.append(synced_bytes(record))
    with CasProcess(config, "image", "pull", reference) as process:
        assert process.result().status == 0

    starts = [
        int(request.headers.get("range", "bytes=0-")[len("bytes=") : -1])
        for request in registry.asked(path)
    ]
    assert starts == begun
    with Case.open(pull_settings) as case:
        case.recover()
        assert own_blobs(case.backing) == {Digest.parse(digest) for digest in image.blobs}
        assert left_by(case) == NOTHING


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_pull_that_is_stopped_ends_with_its_agents_and_is_gone_on_with(
    number: signal.Signals,
    status: int,
    config: Path,
    pull_settings: Settings,
    registry: HostileRegistry,
) -> None:
    """Ctrl-C keeps every byte that came; whatever ends the command ends both agents."""
    image = image_of(3 * MIB)
    reference = registry.publish(image)
    layer = image.layers[0]
    cut = resource(layer.blob, etag=None, cut_after=2 * MIB, then=Line.hold)
    path = registry.behave(layer.digest, cut, resource(layer.blob, etag=None))
    name = TransferName(image_uuid(reference), Digest.parse(layer.digest))
    partial = pull_settings.layout.download(name).with_name(f"{name}.partial")

    with CasProcess(config, "image", "pull", reference) as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size == 2 * MIB)
        agents = agents_of(process.pid)
        os.kill(process.pid, number)
        process.result().assert_orderly(status)
    wait_for(lambda: all(map(has_ended, agents.values())))

    assert len(agents) == 2
    with Case.open(pull_settings) as case:
        assert str(case.pull.image(reference).record.target.digest) == image.digest
        case.recover()
        assert left_by(case) == NOTHING
    if number is not signal.SIGKILL:
        assert [each.headers.get("range") for each in registry.asked(path)] == [
            None,
            f"bytes={2 * MIB}-",
        ]


TAIL = 128 * 1024
PIECE = 32 * 1024
MOST_TWICE = 2 * TAIL + 3 * PIECE
"""Bytes that one kill may cost: twice what is synced together, and what was on its way."""
HEAD_BYTES = 1024


class Pulling:
    """One image after the other, pulled by processes in which something is killed."""

    def __init__(self, settings: Settings, registry: HostileRegistry) -> None:
        self._settings = settings
        self._registry = registry
        self.publish()

    def publish(self) -> None:
        """Have another image, whose large layer is sent no faster than it is written."""
        self.image = image_of(MIB)
        self.reference = self._registry.publish(self.image)
        self.kills = 0
        layer = self.image.layers[0]
        self.layer = Digest.parse(layer.digest)
        name = TransferName(image_uuid(self.reference), self.layer)
        partial = self._settings.layout.download(name)
        partial = partial.with_name(f"{name}.partial")

        def pace(line: Line, first: int) -> None:
            wait_for(lambda: not line.is_open() or size_of(partial) >= first - PIECE)

        behaviour = resource(layer.blob, etag=None, piece=PIECE, pace=pace)
        self._path = self._registry.behave(layer.digest, behaviour)
        self._registry.sent.pop(self._path, None)

    def run(self, kill: Kill) -> int:
        """Pull, with a kill; gives the exit status."""
        status = exit_status(pull_worker.main, self._settings, self.reference, kill)
        self.kills += status != 0
        return status

    def assert_done_by_running_again(self) -> None:
        """The next pull, which nobody disturbs, ends with the right image and nothing else."""
        with Case.open(self._settings) as case:
            record = case.pull.image(self.reference).record
            assert str(record.target.digest) == self.image.digest
            case.recover()
            assert left_by(case) == NOTHING
            for digest, data in self.image.blobs.items():
                assert case.backing.content.read_all(Digest.parse(digest), limit=MIB * 2) == data
            assert own_blobs(case.backing) == {Digest.parse(each) for each in self.image.blobs}
            case.images.remove(record.name)
            case.collect_garbage()
        self._registry.await_idle()
        requests = len(self._registry.asked(self._path))
        sent, size = self._registry.sent[self._path], len(self.image.layers[0].blob)
        assert size <= sent <= size + self.kills * MOST_TWICE + requests * HEAD_BYTES


def size_of(path: Path) -> int:
    """Bytes of a file; none if it is not there yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.fixture
def pulling(pull_settings: Settings, registry: HostileRegistry) -> Pulling:
    """Pulls with a short unsynced tail."""
    download = replace(pull_settings.download, sync_bytes=TAIL, parallel=2)
    return Pulling(replace(pull_settings, download=download), registry)


STEPS = {
    "download begins": ("download begins", "{layer}"),
    "download goes on": ("download goes on", "{layer}"),
    "download ends": ("download ends", "{layer}"),
    "handed over": ("rename", "pending", "{layer}"),
    "made unchangeable": ("access", "pending", "{layer}"),
    "verification begins": ("verify begins", "{layer}"),
    "verification goes on": ("verify goes on", "{layer}"),
    "verification ends": ("verify ends", "{layer}"),
    "linked": ("link", "blobs", "{layer}"),
    "leaves verified": ("unlink", "verified", "{layer}"),
    "named": ("images.",),
}
"""What happens to a layer on its way, in order, and the image's name."""


def kill_at(victim: str, step: str, pulling: Pulling) -> Kill:
    words = (word.replace("{layer}", pulling.layer.hex) for word in STEPS[step])
    return Kill(victim, tuple(words))


@pytest.mark.slow
def test_pull_whose_command_is_killed_at_each_step_in_turn_ends_whole(pulling: Pulling) -> None:
    """Each run comes one step further than the one before; nothing is fetched a second time."""
    for step in STEPS:
        assert pulling.run(kill_at("parent", step, pulling)) == -signal.SIGKILL, step

    pulling.assert_done_by_running_again()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "step"),
    [
        *(("downloader", step) for step in list(STEPS)[:3]),
        *(("verifier", step) for step in list(STEPS)[5:8]),
    ],
)
def test_pull_whose_agent_is_killed_at_a_step_ends_whole(
    victim: str, step: str, pulling: Pulling
) -> None:
    """It fails in order, or does not need that agent any more."""
    assert pulling.run(kill_at(victim, step, pulling)) in (0, 8)

    pulling.assert_done_by_running_again()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["parent", "downloader", "verifier"])
def test_pull_with_kills_at_random_moments_ends_whole(
    victim: str, crash_seed: int, pulling: Pulling
) -> None:
    """Again and again, until it ends by itself; then with the next image."""
    source = random.Random(f"{crash_seed}-{victim}")
    for _ in range(ROUNDS):
        status = pulling.run(Kill(victim, source.randrange(MOST_STEPS)))
        assert status in (0, -signal.SIGKILL if victim == "parent" else 8)
        if status == 0:
            pulling.assert_done_by_running_again()
            pulling.publish()

    pulling.assert_done_by_running_again()
