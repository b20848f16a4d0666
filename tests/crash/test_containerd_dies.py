"""containerd dies, freezes, starts late or starts again while a client works."""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.containerd.daemon import Daemon
from cas.errors import UnavailableError
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from tests.support.command import Cas
from tests.support.crash_store import recover
from tests.support.daemon import (
    WAIT_SECONDS,
    mounts_below,
    persist_directory,
    private_daemon,
    settings_for,
)
from tests.support.frozen import frozen
from tests.support.images import build_image
from tests.support.layers import file
from tests.support.operations import LOOKS, OPERATIONS, Workshop
from tests.support.steps import AtStep, calls_announced, open_case
from tests.support.waiting import wait_for

_KILLS = 3
_EXIT_UNAVAILABLE = 8
_ASKED_BEFORE_ALL = {"activate"}
"""What asks containerd before its first step, and needs no answer after it."""
_MIB = 1024 * 1024
_FILES = 16
_HALF = _FILES // 2 * _MIB


def _moments(source: random.Random, steps: int) -> list[int]:
    """The first step and some others."""
    return [0, *(source.randrange(steps) for _ in range(_KILLS - 1))]


def _wait_until_connected(case: Case) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            case.containerd.health()
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _assert_nothing_left(case: Case) -> None:
    assert recover(case) == []
    assert list(case.backing.leases.iter_leases()) == []
    assert list(case.backing.content.iter_ingests()) == []
    layout = case.settings.layout
    for place in (layout.stage, layout.reservations):
        assert not place.is_dir() or list(place.iterdir()) == []
    assert [path.name for path in layout.volumes.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_whose_containerd_dies_is_unavailable_and_succeeds_when_repeated(
    operation: str, crash_seed: int, restartable_daemon: Daemon, tmp_path: Path
) -> None:
    """The error says that containerd does not answer; the same open store goes on afterwards."""
    fuse = AtStep(restartable_daemon.kill)
    with open_case(restartable_daemon.settings, fuse) as case:
        shop = Workshop(case, tmp_path)
        do = OPERATIONS[operation](shop)
        fuse.set(None)
        do()
        failures = 0
        for last in _moments(random.Random(f"{crash_seed}-{operation}"), fuse.steps):
            do = OPERATIONS[operation](shop)
            fuse.set(last)
            try:
                do()
            except UnavailableError:
                failures += 1
            fuse.set(None)
            restartable_daemon.start()
            _wait_until_connected(case)
            do()
        assert failures or operation in _ASKED_BEFORE_ALL, "containerd was never missed"
        case.volumes.deactivate_all()
        _assert_nothing_left(case)
    assert mounts_below(restartable_daemon.settings.persist) == []


class _HaltingUnpigz:
    """The program that containerd has layers decompressed by, standing still in the middle of one.

    Args:
        directory: For the program.
    """

    def __init__(self, directory: Path) -> None:
        self._reached = directory / "reached"
        program = directory / "unpigz"
        program.write_text(
            f"#!/bin/sh\n[ -e {self._reached} ] && exec gzip -dc\n"
            f"gzip -dc | {{ head -c {_HALF}; touch {self._reached};"
            " while [ -e /proc/$PPID ]; do sleep 0.02; done; }\n"
        )
        program.chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}

    def wait(self) -> None:
        """Wait until containerd has taken half of the layer; from then on it gets layers whole."""
        wait_for(self._reached.exists)


@pytest.mark.slow
def test_unpack_whose_containerd_dies_in_the_middle_of_a_layer_begins_again(
    own_settings: Settings, tmp_path: Path
) -> None:
    """Half a layer is never taken for the layer."""
    content = os.urandom(_MIB)
    image = build_image([[file(f"f{number}", content) for number in range(_FILES)]])
    name = VolumeName.parse("0b4b1c1e-5a0f-4d86-9d3c-52f0a60b7a11#0")
    unpigz = _HaltingUnpigz(tmp_path)

    def kill() -> None:
        unpigz.wait()
        daemon.kill()

    killer = threading.Thread(target=kill)
    with private_daemon(own_settings, environment=unpigz.environment) as daemon:
        with open_case(
            own_settings, lambda step: killer.start() if step == "diff.apply" else None
        ) as case:
            case.images.import_archive(image.write_oci_tar(tmp_path / "image.tar"))
            with pytest.raises(UnavailableError):
                case.volumes.prepare(name, image.name)
        killer.join()
        daemon.start()
        with open_case(own_settings) as case:
            rootfs = case.volumes.prepare(name, image.name, activate=True).rootfs
            for number in range(_FILES):
                assert (rootfs / f"f{number}").read_bytes() == content
            case.volumes.deactivate(name)
            _assert_nothing_left(case)


def test_prepare_despite_the_directory_that_a_killed_containerd_left_succeeds(
    restartable_daemon: Daemon, tmp_path: Path
) -> None:
    """containerd meets the directory of the snapshot whose record it had not committed."""
    snapshots = (
        restartable_daemon.settings.layout.case
        / "io.containerd.snapshotter.v1.overlayfs"
        / "snapshots"
    )
    with open_case(restartable_daemon.settings) as case:
        shop = Workshop(case, tmp_path)
        shop.prepared()
        number = max(int(path.name) for path in snapshots.iterdir()) + 1
    restartable_daemon.kill()
    remains = snapshots / str(number) / "fs" / "remains"
    remains.parent.mkdir(parents=True)
    remains.write_bytes(b"")
    restartable_daemon.start()
    with open_case(restartable_daemon.settings) as case:
        shop = Workshop(case, tmp_path)
        shop.prepared()
        assert not remains.exists()
        assert (snapshots / str(number)).is_dir()
        assert recover(case) == []


@pytest.mark.slow
def test_commands_whose_containerd_dies_exit_with_8_and_succeed_when_repeated(
    restartable_daemon: Daemon,
    crash_seed: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No command ends in a traceback; each says which peer is missing."""
    hurried = tmp_path / "hurried"
    hurried.mkdir()
    run = Cas(restartable_daemon.settings, tmp_path, capfd)
    run_in_vain = Cas(replace(restartable_daemon.settings, wait_seconds=0.5), hurried, capfd)
    fuse = AtStep(restartable_daemon.kill)
    source = random.Random(crash_seed)
    blob = tmp_path / "blob"
    blob.write_bytes(source.randbytes(2 * _MIB))
    image = build_image([[file("f", source.randbytes(50_000))], [file("g", b"g")]])
    archive = image.write_oci_tar(tmp_path / "image.tar")
    name = "0b4b1c1e-5a0f-4d86-9d3c-52f0a60b7a11#0"
    for command in (
        ["blob", "ingest", blob],
        ["image", "import", archive],
        ["volume", "prepare", name, "--image", image.name],
        ["df"],
        ["volume", "rm", "--ignore", name],
        ["prune", "--force"],
    ):
        for moment in (0, source.randrange(1, 12)):
            fuse.set(moment)
            with calls_announced(fuse):
                done = run_in_vain(*command)
            # What was lacking may have been the end of the lease only, which nobody waits for.
            done.assert_orderly(_EXIT_UNAVAILABLE, *([0] if moment else []))
            fuse.set(None)
            restartable_daemon.start()
            run(*command).assert_orderly(0)


@pytest.mark.parametrize("look", LOOKS)
def test_look_without_containerd_is_unavailable(
    look: str, restartable_daemon: Daemon, tmp_path: Path
) -> None:
    """A store that cannot be asked is never taken for an empty one."""
    with open_case(restartable_daemon.settings) as case:
        name = Workshop(case, tmp_path).prepared()
        image = case.volumes.get(name).record
        assert image is not None
        restartable_daemon.kill()
        with pytest.raises(UnavailableError):
            LOOKS[look](case, image.image, name)


def test_client_before_its_containerd_waits_for_it(containerd_binary: str) -> None:
    """A store is opened as soon as a containerd that starts late is there."""
    with persist_directory() as directory, ThreadPoolExecutor(1) as pool:
        settings = settings_for(directory, containerd_binary)
        opening = pool.submit(Case.open, settings, writing=False)
        with private_daemon(settings), opening.result(WAIT_SECONDS) as case:
            assert list(case.images.iter_images()) == []


def test_client_of_a_frozen_containerd_waits_for_it(restartable_daemon: Daemon) -> None:
    """A socket that is there and does not answer is waited for like one that is not there."""
    with ThreadPoolExecutor(1) as pool:
        with frozen(restartable_daemon):
            opening = pool.submit(Case.open, restartable_daemon.settings)
            with pytest.raises(TimeoutError):
                opening.result(0.3)
        with opening.result(WAIT_SECONDS) as case:
            assert list(case.images.iter_images()) == []


def test_containerd_absent_after_the_wait_is_unavailable(containerd_binary: str) -> None:
    """Waiting has an end."""
    with persist_directory() as directory:
        settings = replace(settings_for(directory, containerd_binary), wait_seconds=0.2)
        with pytest.raises(UnavailableError, match="cas containerd run"):
            Case.open(settings, writing=False)


@pytest.mark.slow
def test_store_whose_containerd_is_restarted_between_calls_goes_on(
    restartable_daemon: Daemon, tmp_path: Path
) -> None:
    """An open store finds the new containerd and what the old one held, again and again."""
    with open_case(restartable_daemon.settings) as case:
        shop = Workshop(case, tmp_path)
        images = set()
        for stop in (restartable_daemon.stop, restartable_daemon.kill) * 2:
            images.add(shop.imported())
            stop()
            restartable_daemon.start()
            _wait_until_connected(case)
            assert {record.name for record in case.images.iter_images()} == images
            assert shop.prepared() in {status.name for status in case.volumes.iter_volumes()}
            images = {record.name for record in case.images.iter_images()}
