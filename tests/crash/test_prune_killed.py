"""A prune or repair killed at any step removes nothing that is needed; a repeat completes it."""

import secrets
import shutil
import signal
from contextlib import closing

import pytest

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.settings import Settings
from cas.store.check.check import Check
from cas.store.check.findings import Finding
from cas.store.check.repair import Repair
from cas.store.sentinel import Sentinel
from tests.support import prune_worker
from tests.support.daemon import connect
from tests.support.forked import exit_status
from tests.support.images import BuiltImage, build_image
from tests.support.layers import file
from tests.support.volumes import Store, add_image, open_store, volume_name

pytestmark = pytest.mark.slow

MOST_STEPS = 150
"""More than any of these operations has; a run that is not killed ends the test before."""


def _run(settings: Settings, operation: str, steps: int) -> bool:
    """Run until the step; tells whether the end came before it."""
    arguments = (str(settings.persist), str(settings.socket), settings.namespace, operation, steps)
    status = exit_status(prune_worker.main, *arguments)
    assert status in {0, -signal.SIGKILL}
    return status == 0


def _image(name: str, *layers: bytes) -> BuiltImage:
    return build_image(layers=[[file("data", data)] for data in layers]).named(name)


def _check(store: Store) -> list[Finding]:
    check = Check(store.backing, platform=store.images.platform, judge=store.volumes.iter_volumes)
    return list(check.run(read_data=True))


def _recover(store: Store) -> None:
    repair = Repair(
        store.backing, images=store.images, unpack=store.unpack, recover=store.volumes.recover
    )
    assert [each for each in repair.repair(_check(store)) if not each.done] == []


def _files(store: Store) -> set[str]:
    assert store.backing.blobs_directory is not None
    return {path.name for path in store.backing.blobs_directory.iterdir()}


def test_prune_killed_at_any_step_is_completed_by_the_next(
    restartable_daemon: Daemon,
) -> None:
    """What a volume, a lease or a pin needs is there after each kill; the rest is gone at last."""
    with closing(connect(restartable_daemon.settings)) as containerd:
        store = open_store(containerd, restartable_daemon.settings)
        Sentinel(store.backing).ensure()
        shared = secrets.token_bytes(30_000)
        used = _image("example.com/used:1", shared, secrets.token_bytes(30_000))
        add_image(store, used)
        name = volume_name()
        store.volumes.prepare(name, used.name)
        pinned = Digest.of(shared[:100])
        with store.leasing.hold("test") as lease:
            store.backing.content.put("t", lease.id, shared[:100], pinned, {GC_ROOT: "now"})
        before = _files(store)
        for steps in range(MOST_STEPS):
            gone = [_image(f"example.com/gone{n}:1", shared, bytes([steps, n])) for n in range(2)]
            for image in gone:
                add_image(store, image)
                store.unpack_image(image.name)
            finished = _run(store.settings, "prune", steps)
            _recover(store)
            assert _check(store) == []
            assert {Digest(each) for each in _files(store)} >= {pinned}
            assert set(used.blobs) <= {f"sha256:{each}" for each in _files(store)}
            assert store.volumes.get(name).problem is None
            assert _run(store.settings, "prune", -1)
            assert _files(store) == before
            assert store.snapshots() == {str(name), *used.chain_ids}
            if finished:
                assert steps > 5
                return
    pytest.fail(f"a prune has more than {MOST_STEPS} steps")


def test_repair_killed_at_any_step_is_completed_by_the_next(
    containerd: Containerd, settings: Settings
) -> None:
    """A damaged blob ends in the quarantine once, junk aside, and the image can come again."""
    store = open_store(containerd, settings)
    Sentinel(store.backing).ensure()
    directory = store.backing.blobs_directory
    assert directory is not None
    for steps in range(MOST_STEPS):
        image = _image("example.com/bad:1", secrets.token_bytes(1000))
        add_image(store, image)
        layer = directory / image.layers[0].digest.removeprefix("sha256:")
        layer.write_bytes(b"x")
        (directory / "junk").write_bytes(b"junk")
        finished = _run(settings, "repair", steps)
        if not finished:
            assert _run(settings, "repair", -1)
        assert not (directory / "junk").exists()
        aside = [path for path in settings.layout.quarantine.iterdir() if layer.name in path.name]
        assert [path.read_bytes() for path in aside] == [b"x"]
        store.backing.images.delete(image.name)
        add_image(store, image)
        assert _check(store) == []
        store.backing.images.delete(image.name, sync=True)
        if finished:
            assert steps > 2
            return
    pytest.fail(f"a repair has more than {MOST_STEPS} steps")


def test_rebuild_killed_at_any_step_loses_no_blob(
    restartable_daemon: Daemon,
) -> None:
    """Until the rebuild ends the store counts as lost, and a repeat brings everything back."""
    settings = restartable_daemon.settings
    with closing(connect(settings)) as containerd:
        store = open_store(containerd, settings)
        Sentinel(store.backing).ensure()
        image = _image("example.com/image:1", secrets.token_bytes(1000))
        add_image(store, image)
        store.volumes.prepare(volume_name(), image.name)
    for steps in range(0, MOST_STEPS, 3):
        restartable_daemon.stop()
        shutil.rmtree(settings.layout.case / "io.containerd.metadata.v1.bolt")
        restartable_daemon.start()
        finished = _run(settings, "repair", steps)
        # containerd starts anew, collects, and has nothing to take.
        restartable_daemon.kill()
        restartable_daemon.start()
        if not finished:
            assert _run(settings, "repair", -1)
        with closing(connect(settings)) as containerd:
            store = open_store(containerd, settings)
            store.leasing.reap()
            store.backing.leases.collect_garbage()
            assert {str(blob.digest) for blob in containerd.content.iter_blobs()} >= set(
                image.blobs
            )
            assert store.images.exists(image.name)
        if finished:
            assert steps > 5
            return
    pytest.fail(f"a rebuild has more than {MOST_STEPS} steps")
