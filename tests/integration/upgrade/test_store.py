"""Stores of older software under a real containerd: moved, used, kept apart from newer ones."""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case, open_upgrade
from cas.containerd.client import Containerd
from cas.containerd.place import Place
from cas.daemon.conversion import old_content
from cas.daemon.old_store import opened_old_store
from cas.errors import (
    AlreadyExistsError,
    CasError,
    ConflictError,
    InterruptedOperationError,
    NoSpaceError,
    UnavailableError,
    VolumeHeldError,
)
from cas.fsops.effects import Effect, observed
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import DOWNLOADED, GC_ROOT, UNFINISHED, VOLUME
from cas.model.progress import NO_PROGRESS
from cas.model.volume_name import VolumeName
from cas.store.locking import Locks
from cas.upgrade.merged import MergedKind
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.old_store import require_store_converted
from cas.upgrade.pending import has_untold_merges, is_needed
from cas.upgrade.snapshot_merge import SnapshotMerge
from cas.upgrade.store_merge import StoreMerge
from cas.volumes.holds import iter_held
from cas.volumes.records import read_record
from cas.volumes.volumes import VolumeState
from tests.support.daemon import WAIT_SECONDS, private_daemon
from tests.support.images import layered_image
from tests.support.old_device import OldApp, OldDevice
from tests.support.old_store import BLOB_LABELS, LABELS, OldContainer, make_old_store
from tests.support.volumes import add_image, open_store

pytestmark = pytest.mark.slow


@contextmanager
def _opened(device: OldDevice, binary: str) -> Iterator[Case]:
    settings = replace(device.settings, containerd_binary=binary)
    with private_daemon(settings), Case.open(settings) as case:
        case.recover()
        yield case


def _name(device: OldDevice, container: OldContainer) -> VolumeName:
    return VolumeName.parse(device.new(container.app).name)


def _take_in(case: Case) -> dict[str, CasError | None]:
    """Take old content in; gives what came in or failed, files by their names."""
    return {
        merged.name.rpartition("/")[2] if merged.kind is MergedKind.BLOB else merged.name: (
            merged.error
        )
        for merged in old_content(case).take_in()
        if not merged.reason
    }


def _full_for(account: Path) -> Callable[[Effect, str], None]:
    """Leave no room for a file."""

    def refuse(kind: Effect, path: str) -> None:
        if (kind, path) == (Effect.WRITE_FILE, str(account)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return refuse


def _ingest(case: Case) -> set[str]:
    return {name for name, error in _take_in(case).items() if error is None}


@pytest.mark.parametrize("place", ["containerd", "vault/containerd"])
def test_old_store_after_a_run_serves_its_images_and_containers(
    device: OldDevice, containerd_binary: str, place: str
) -> None:
    """Image listed, old snapshot mounted, what the app wrote is there; and all is well then."""
    container = make_old_store(device, device.persist / place, containerd_binary)
    device.write_checkpoint()
    assert {each.result.value for each in device.run()} == {"moved"}
    assert not (device.persist / place).exists()
    name = _name(device, container)
    with _opened(device, containerd_binary) as case:
        assert [image.name for image in case.images.iter_images()] == [container.image.name]
        root = case.volumes.activate(name).rootfs
        assert (root / "written").read_text() == "by the app"
        assert (root / "top").read_text() == "1\n"
        (root / "more").write_text("after the upgrade")
        case.volumes.deactivate(name)
        case.volume_snapshots.create([name], "before")
        (case.volumes.activate(name).rootfs / "written").write_text("spoilt")
        case.volumes.deactivate(name)
        case.volume_snapshots.roll_back([name], "before")
        root = case.volumes.activate(name).rootfs
        assert (root / "written").read_text() == "by the app"
        assert (root / "more").read_text() == "after the upgrade"
        case.volumes.deactivate(name)
        case.collect_garbage()
        assert case.volumes.prepare(name, container.image.name).state is VolumeState.INACTIVE
        assert case.check_store(read_data=True).findings == ()
        assert case.prune.plan().objects == ()
        assert case.volumes.remove(name)
        assert container.key not in {info.name for info in case.backing.snapshots.iter_snapshots()}
    assert device.run() == []


@pytest.mark.parametrize("image_stays", [True, False], ids=["unpacked", "copied"])
def test_old_store_beside_a_newer_one_is_merged_into_it(
    together: OldDevice, containerd_binary: str, image_stays: bool
) -> None:
    """Images come in by name, blobs by content, containers with their data; the newer wins."""
    newer, older = (layered_image(1, name="example.com/same:1", seed=seed) for seed in "no")
    with _opened(together, containerd_binary) as case:
        kept = case.blobs.ingest_stream(io.BytesIO(b"newer"))
        [shared] = older.layers
        labels = {"example.com/blob": "newer"}
        case.blobs.ingest_stream(io.BytesIO(older.blobs[shared.digest]), labels=labels)
        add_image(open_store(case.containerd, case.settings), newer)
    store = together.persist / "containerd"
    container = make_old_store(
        together, store, containerd_binary, others=[older], image_stays=image_stays
    )
    together.write_checkpoint()
    reasons = {each.planned.found.kind.value: each.planned.reason.value for each in together.run()}
    assert reasons == {"store": "store-exists", "container": "store-not-converted"}
    name = _name(together, container)
    with _opened(together, containerd_binary) as case:
        with pytest.raises(VolumeHeldError, match="old store"):
            case.volumes.prepare(name, "any")
        taken = _take_in(case)
        assert set(taken.values()) == {None}
        assert {str(store), container.key} <= set(taken)
        assert not store.exists()
        assert not together.settings.layout.old_store_run.exists()
        assert {each.result.value for each in together.run()} == {"moved"}
        case.recover()
        images = {image.name: str(image.target.digest) for image in case.images.iter_images()}
        expected = {newer.name: str(newer.digest)}
        if image_stays:
            expected[container.image.name] = str(container.image.digest)
            record = case.images.get(container.image.name)
            assert record.labels == {**LABELS, DOWNLOADED: "true"}
            layer = case.blobs.get(Digest.parse(container.image.layers[0].digest))
            assert layer.labels.items() >= BLOB_LABELS.items()
            assert GC_ROOT not in layer.labels
        both = case.blobs.get(Digest.parse(shared.digest))
        assert both.labels.items() >= {**BLOB_LABELS, "example.com/blob": "newer"}.items()
        assert images == expected
        blobs = {str(info.digest) for info in case.blobs.iter_blobs()}
        assert blobs >= {*older.blobs, *newer.blobs, str(kept.digest)}
        root = case.volumes.activate(name).rootfs
        assert (root / "written").read_text() == "by the app"
        assert (root / "top").read_text() == "1\n"
        case.volumes.deactivate(name)
        assert case.check_store(read_data=True).findings == ()
        assert _take_in(case) == {}
        assert case.volumes.remove(name)
        if image_stays:
            assert case.images.remove(container.image.name)
        case.collect_garbage()
        left = {str(info.digest) for info in case.blobs.iter_blobs()}
        assert left.isdisjoint(set(container.image.blobs) - set(older.blobs))
        assert not any(
            "cas-extract" in info.name for info in case.backing.snapshots.iter_snapshots()
        )
    assert list(iter_held(together.settings.layout)) == []
    assert together.run() == []


def test_merge_across_file_systems_accounts_for_what_came_and_what_stays(
    apart: OldDevice, containerd_binary: str
) -> None:
    """Report and plan say of every image and snapshot what became of it and why."""
    newer, older = (layered_image(1, name="example.com/same:1", seed=seed) for seed in "no")
    with _opened(apart, containerd_binary) as case:
        add_image(open_store(case.containerd, case.settings), newer)
    store = apart.persist / "containerd"
    container = make_old_store(apart, store, containerd_binary, others=[older])
    apart.write_checkpoint()
    directory = apart.persist / "runx/pods/prepared" / container.key
    shutil.rmtree(directory)
    with _opened(apart, containerd_binary) as case:
        assert str(store) not in _take_in(case)
        [planned] = open_upgrade(apart.settings).plan()
        assert planned.reason.value == "store-left"
        assert f"{container.key!r} did not come in: no container waits" in planned.explanation
        os.utime(apart.settings.layout.upgrade_merges, (1, 1))
        assert has_untold_merges(apart.settings.layout)
        apart.run()
        os.utime(apart.settings.layout.upgrade_report, (0, 0))  # a clock that went back
        assert not has_untold_merges(apart.settings.layout)
        merged = _merged(apart)
        assert merged["image", older.name][0] == "left"
        assert str(newer.digest) in merged["image", older.name][1]
        assert merged["image", container.image.name] == ("moved", "")
        assert merged["snapshot", container.key] == ("left", "no container waits for it")
        directory.mkdir(parents=True)
        apart.run()
        account = apart.settings.layout.upgrade_merges
        lines = len(account.read_bytes().splitlines())
        layers = container.image.chain_ids
        with observed(_full_for(account)):
            assert isinstance(_take_in(case)[str(store)], NoSpaceError)
        assert store.exists(), "what cannot be told is not removed"
        told_before = []

        def heed(kind: Effect, path: str) -> None:
            if (kind, path) == (Effect.RENAME, str(store)):
                told_before.append(len(account.read_bytes().splitlines()) - lines)

        with observed(heed):
            assert {container.key, str(store)} <= set(_take_in(case))
        assert told_before == [1 + len(layers)], "nobody can tell of them once the store is gone"
        assert len(account.read_bytes().splitlines()) == lines + 2 + len(layers)
        apart.run()
        case.recover()
        assert (case.volumes.activate(_name(apart, container)).rootfs / "written").exists()
        case.volumes.deactivate(_name(apart, container))
    merged = _merged(apart)
    assert merged["snapshot", container.key] == merged["store", str(store)] == ("moved", "")
    for layer in layers:
        assert merged["snapshot", layer] == ("discarded", "the newer store has this layer")
    blobs = store / "io.containerd.content.v1.content/blobs/sha256"
    for digest in {*container.image.blobs, *older.blobs}:
        assert merged["blob", str(blobs / digest.removeprefix("sha256:"))] == ("moved", "")
    assert not store.exists()


@pytest.mark.parametrize(
    ("committed", "reason"),
    [
        ("my-data", "it was committed and is no layer"),
        (f"sha256:{'7' * 64}", "its own label keeps this layer"),
    ],
    ids=["no layer", "layer of no image"],
)
def test_old_store_stays_for_a_committed_snapshot_that_only_it_has(
    together: OldDevice, containerd_binary: str, committed: str, reason: str
) -> None:
    """No image gives it back, and the newer store lacks it: it would be lost with the store."""
    with _opened(together, containerd_binary):
        pass
    store = together.persist / "containerd"
    make_old_store(together, store, containerd_binary, committed=committed)
    together.write_checkpoint()
    together.run()
    with _opened(together, containerd_binary) as case:
        assert str(store) not in _take_in(case)
    outcomes = {each.planned.found.path: each.planned for each in together.run()}
    assert outcomes[store].reason.value == "store-left"
    assert f"snapshot {committed!r} did not come in: {reason}" in outcomes[store].explanation
    result, told = _merged(together)["snapshot", committed]
    assert (result, told.startswith(reason)) == ("left", True)


def _merged(device: OldDevice) -> dict[tuple[str, str], tuple[str, str]]:
    report = json.loads(device.settings.layout.upgrade_report.read_bytes())
    return {
        (each["kind"], each["name"]): (each["result"], each["explanation"])
        for each in report["merged"]
    }


def test_old_store_with_a_damaged_blob_gives_the_rest(
    together: OldDevice, containerd_binary: str
) -> None:
    """The image does not come in, what is whole of it does, and the container all the same."""
    with _opened(together, containerd_binary):
        pass
    store = together.persist / "containerd"
    container = make_old_store(together, store, containerd_binary)
    together.write_checkpoint()
    together.run()
    blobs = set(container.image.blobs)
    damaged = container.image.layers[0].digest.removeprefix("sha256:")
    directory = store / "io.containerd.content.v1.content/blobs/sha256"
    (directory / damaged).chmod(0o644)
    (directory / damaged).write_bytes(b"damaged")
    with _opened(together, containerd_binary) as case:
        taken = _take_in(case)
        failed = {name: error.reference for name, error in taken.items() if error is not None}
        assert failed == {
            container.image.name: "size-mismatch",
            damaged: "digest-mismatch",
        }
        assert taken[container.key] is None
        found = {str(info.digest) for info in case.blobs.iter_blobs()}
        assert found >= blobs - {f"sha256:{damaged}"}
        assert f"sha256:{damaged}" not in found
        [stays] = (each.planned for each in together.run() if each.result.value == "left")
        assert stays.reason.value == "store-left"
        assert repr(container.image.name) in stays.explanation
        assert _merged(together)["image", container.image.name][0] == "failed"
        case.recover()
        _assert_has_data(case, _name(together, container))
    assert [path.name for path in directory.iterdir()] == [damaged]


def test_image_whose_manifest_a_power_cut_took_from_the_newer_store_comes_in(
    together: OldDevice, containerd_binary: str
) -> None:
    """Its record is there, its file is not: the old store still has one."""
    other = layered_image(1, name="example.com/other:1", seed="other")
    manifest = Digest.parse(other.digest)
    with _opened(together, containerd_binary) as case:
        case.blobs.ingest_stream(io.BytesIO(other.blobs[other.digest]))
    make_old_store(together, together.persist / "containerd", containerd_binary, others=[other])
    together.write_checkpoint()
    together.run()
    content = together.settings.layout.case / "io.containerd.content.v1.content/blobs/sha256"
    (content / manifest.hex).unlink()
    with _opened(together, containerd_binary) as case:
        assert set(_take_in(case).values()) == {None}
        assert other.name in {image.name for image in case.images.iter_images()}
        assert case.check_store(read_data=True).findings == ()


@pytest.mark.parametrize("place", ["containerd", "vault/containerd"])
def test_old_store_behind_a_link_is_nobodys_to_merge(
    together: OldDevice, containerd_binary: str, tmp_path: Path, place: str
) -> None:
    """What the link leads to is somebody else's: nothing is read of it, moved from it or made."""
    elsewhere = tmp_path / "elsewhere"
    blob = elsewhere / "io.containerd.content.v1.content/blobs/sha256"
    blob /= hashlib.sha256(b"somebody's").hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"somebody's")
    (together.persist / place).symlink_to(elsewhere)
    together.write_checkpoint()
    require_store_converted(together.settings.layout)
    [outcome] = together.run()
    assert (outcome.result.value, outcome.planned.reason.value) == ("left", "wrong-type")
    with _opened(together, containerd_binary) as case:
        assert _take_in(case) == {}
    assert [path for path in elsewhere.rglob("*") if path.is_file()] == [blob]


def test_containerd_beside_an_old_store_is_not_started(
    together: OldDevice, containerd_binary: str
) -> None:
    """A new store in the place of the old one would shut it out for ever."""
    store = together.persist / "containerd"
    (store / "io.containerd.metadata.v1.bolt").mkdir(parents=True)
    layout = together.settings.layout
    require_store_converted(layout)
    (store / "io.containerd.metadata.v1.bolt" / "meta.db").write_text("x")
    with pytest.raises(ConflictError, match="cas upgrade run"):
        require_store_converted(layout)
    together.write_checkpoint()
    together.run()
    require_store_converted(layout)


def test_old_store_that_a_containerd_runs_on_stays_with_its_containers(
    together: OldDevice, containerd_binary: str
) -> None:
    """Neither is moved under it, and the volume is held until the store is."""
    container = make_old_store(together, together.persist / "containerd", containerd_binary)
    together.write_checkpoint()
    database = together.persist / "containerd/io.containerd.metadata.v1.bolt/meta.db"
    with database.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        outcomes = together.run()
    assert [(each.result.value, each.planned.reason.value) for each in outcomes] == [
        ("failed", "old-store"),
        ("left", "store-not-converted"),
    ]
    assert [name for name, _ in iter_held(together.settings.layout)] == [
        str(_name(together, container))
    ]
    assert {each.result.value for each in together.run()} == {"moved"}
    assert list(iter_held(together.settings.layout)) == []


def test_old_stores_of_two_ages_become_one(together: OldDevice, containerd_binary: str) -> None:
    """The later one is the store; the earlier one stays, gives its content, holds its volumes."""
    newer = make_old_store(together, together.persist / "vault/containerd", containerd_binary)
    older = make_old_store(
        together, together.persist / "containerd", containerd_binary, seed="older", app="other"
    )
    together.write_checkpoint()
    for remove in (False, False, True):
        outcomes = together.run(remove_recreated=remove)
        reasons = {each.planned.found.path.name: each.planned.reason.value for each in outcomes}
        assert reasons.pop("containerd") in ("old-store", "store-exists")
        assert reasons[older.key] == "store-not-converted"
        assert [name for name, _ in iter_held(together.settings.layout)] == [
            str(_name(together, older))
        ]
    with _opened(together, containerd_binary) as case:
        _assert_has_data(case, _name(together, newer))
        with pytest.raises(VolumeHeldError, match="old store"):
            case.volumes.prepare(_name(together, older), "any")
        assert older.key in _ingest(case)
        assert {each.result.value for each in together.run()} == {"moved"}
        _assert_has_data(case, _name(together, older))
    assert not (together.persist / "containerd").exists()


def test_old_store_that_a_downgrade_made_again_stays_until_its_removal_is_asked_for(
    together: OldDevice, containerd_binary: str
) -> None:
    """The key is that of what was converted, and the data another; nothing is mixed or lost."""
    store = together.persist / "containerd"
    container = make_old_store(together, store, containerd_binary)
    together.write_checkpoint()
    together.run()
    name = _name(together, container)
    with _opened(together, containerd_binary) as case:
        (case.volumes.activate(name).rootfs / "written").write_text("after the upgrade")
        case.volumes.deactivate(name)
    make_old_store(together, store, containerd_binary)
    with _opened(together, containerd_binary) as case:
        reasons = {each.planned.reason.value for each in together.run()}
        assert reasons == {"store-exists", "recreated"}
        assert str(store) not in _take_in(case)
        assert list(store.glob("io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/written"))
        root = case.volumes.activate(name).rootfs
        assert (root / "written").read_text() == "after the upgrade"
        case.volumes.deactivate(name)
        new = together.add(OldApp("new since"))
        together.write_checkpoint()
        waiting = together.container(new.old_name())
        results = {each.planned.found.path: each for each in together.run(remove_recreated=True)}
        assert results[store].planned.reason.value == "store-exists"
        assert results[waiting].planned.reason.value == "store-not-converted"
        shutil.rmtree(waiting)
        assert {each.result.value for each in together.run(remove_recreated=True)} == {"discarded"}
    assert not store.exists()


def test_container_of_another_release_waits_for_its_snapshot_when_adopted(
    together: OldDevice, containerd_binary: str
) -> None:
    """Its name alone would make a volume without data; the merge of the stores brings that."""
    with _opened(together, containerd_binary):
        pass
    container = make_old_store(together, together.persist / "containerd", containerd_binary)
    together.write_checkpoint()
    old = together.persist / "runx/pods/prepared" / container.key
    suffixed = together.settings.layout.volumes / f"{together.new(container.app).name}.container"
    (old / "snapshotid.txt").write_text(container.key)
    old.rename(suffixed)
    plain = suffixed.with_name(f"{together.new(OldApp('plain')).name}.container")
    plain.touch()
    reasons = {
        each.planned.found.path: each.planned.reason.value
        for each in together.run(adopt_suffixed=True)
    }
    assert (reasons[suffixed], reasons[plain]) == ("store-not-converted", "wrong-type")
    with _opened(together, containerd_binary) as case:
        with pytest.raises(VolumeHeldError):
            case.volumes.prepare(_name(together, container), "any")
        assert container.key in _ingest(case)
        results = {
            each.planned.found.path: each.result.value for each in together.run(adopt_suffixed=True)
        }
        assert results == {suffixed: "moved", plain: "left"}
        _assert_has_data(case, _name(together, container))


@pytest.mark.parametrize(
    ("obstacle", "reference"),
    [
        ("in use", "in-use"),
        ("damaged", "containerd-unavailable"),
        ("absent", "store-metadata-lost"),
        ("emptied", None),
    ],
)
def test_old_store_that_cannot_be_opened_stays(
    together: OldDevice, containerd_binary: str, obstacle: str, reference: str | None
) -> None:
    """Nothing of one that is in use is touched; of one without its database the blobs come in."""
    store = together.persist / "containerd"
    with _opened(together, containerd_binary):
        pass
    container = make_old_store(together, store, containerd_binary)
    together.write_checkpoint()
    together.run()
    database = store / "io.containerd.metadata.v1.bolt/meta.db"
    with _opened(together, containerd_binary) as case, database.open("rb") as held:
        if obstacle == "in use":
            fcntl.flock(held, fcntl.LOCK_EX)
        elif obstacle == "absent":
            database.unlink()
        else:
            database.write_bytes(b"damaged" * 10_000 if obstacle == "damaged" else b"")
        taken = _take_in(case)
        failed = {name: error.reference for name, error in taken.items() if error is not None}
        assert failed == ({} if reference is None else {str(store): reference})
        came = {f"sha256:{name}" for name, error in taken.items() if error is None}
        assert came == (set() if obstacle == "in use" else set(container.image.blobs))
        assert [name for name, _ in iter_held(together.settings.layout)] == [
            str(_name(together, container))
        ]
    assert list(store.glob("io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/written"))


def test_old_store_whose_containerd_stops_answering_gives_its_blobs(
    together: OldDevice, containerd_binary: str
) -> None:
    """It is that store's failure and not the newer one's, which ends nothing."""
    store = together.persist / "containerd"
    container = make_old_store(together, store, containerd_binary)
    with _opened(together, containerd_binary) as case:

        @contextmanager
        def ended(root: Path) -> Iterator[Containerd]:
            place = Place.of_old_store(case.settings, root)
            with ExitStack() as stack:
                with opened_old_store(case.settings, root):
                    settings = case.settings
                    connection = Containerd.connect(
                        place.socket,
                        namespace=settings.namespace,
                        snapshotter=settings.snapshotter,
                        wait_seconds=WAIT_SECONDS,
                    )
                    old = stack.enter_context(connection)
                yield old

        merge = StoreMerge(
            case.backing,
            blobs=case.blobs,
            images=case.images,
            unpack=case.unpack,
            open_old=ended,
            cancel=Cancellation(),
            progress=NO_PROGRESS,
        )
        first, *others = merge.merge(store, [container.key])
        assert (first.kind, first.name) == (MergedKind.STORE, str(store))
        assert isinstance(first.error, UnavailableError)
        assert {f"sha256:{Path(each.name).name}" for each in others} == set(container.image.blobs)
        assert {each.error for each in others} == {None}


class _StopAt:
    """Asks for a stop where an action goes on for the first time."""

    def __init__(self, action: str) -> None:
        self.cancel = Cancellation()
        self._action = action

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        pass

    def advance(self, action: str, item: str, amount: int) -> None:
        if action == self._action:
            self.cancel.set()

    def finish(self, action: str, item: str) -> None:
        pass


def test_merge_that_is_stopped_wherever_it_takes_long_goes_on_later(
    together: OldDevice, containerd_binary: str
) -> None:
    """While it reads blobs, copies a snapshot, removes the store: each tells and can be ended."""
    store = together.persist / "containerd"
    other = layered_image(1, name="example.com/other:1", seed="other")
    with _opened(together, containerd_binary):
        pass
    container = make_old_store(
        together, store, containerd_binary, others=[other], image_stays=False
    )
    together.write_checkpoint()
    with _opened(together, containerd_binary) as case:
        for action in ("ingest", "merge", "remove"):
            stop = _StopAt(action)
            with pytest.raises(InterruptedOperationError):
                list(old_content(case, cancel=stop.cancel, progress=stop).take_in())
        assert not store.exists()
        assert OldLayout.removing(store).exists()
        shutil.rmtree(together.persist / "runx/pods/prepared" / container.key)
        together.settings.layout.upgrade_merges.unlink(missing_ok=True)
        upgrade = open_upgrade(together.settings)
        assert is_needed(together.settings.layout)
        list(upgrade.run())
        assert not OldLayout.removing(store).exists()
        assert not is_needed(together.settings.layout)


def test_snapshot_that_is_whole_is_not_replaced_by_one_of_an_old_store(
    together: OldDevice, containerd_binary: str
) -> None:
    """Whoever asks for it: what is in the newer store is somebody's data."""
    with _opened(together, containerd_binary) as case:
        snapshots = case.backing.snapshots
        [mount] = snapshots.prepare("key", "", None, {GC_ROOT: "now"})
        (Path(mount.source) / "written").touch()
        merge = SnapshotMerge(
            case.containerd,
            case.backing,
            case.images,
            case.unpack,
            cancel=Cancellation(),
            progress=NO_PROGRESS,
        )
        with pytest.raises(AlreadyExistsError):
            merge.bring(merge.find("key"))
        assert (Path(mount.source) / "written").exists()
        snapshots.remove("key")


def test_snapshot_that_was_copied_in_part_is_nobodys_and_copied_again(
    together: OldDevice, containerd_binary: str
) -> None:
    """What a killed merge leaves is neither adopted nor believed, whoever has met it meanwhile."""
    with _opened(together, containerd_binary):
        pass
    container = make_old_store(together, together.persist / "containerd", containerd_binary)
    together.write_checkpoint()
    with _opened(together, containerd_binary) as case:
        labels = {UNFINISHED: "now", GC_ROOT: "now"}
        case.backing.snapshots.prepare(container.key, "", None, labels)
        assert {each.result.value for each in together.run()} == {"left", "moved"}
        case.recover()
        assert VOLUME not in case.backing.snapshots.stat(container.key).labels
        assert container.key in _ingest(case)
        case.recover()
        _assert_has_data(case, _name(together, container))


def test_snapshot_that_was_copied_in_part_is_copied_again_before_its_container_is_converted(
    together: OldDevice, containerd_binary: str
) -> None:
    """The name of the half that a killed merge leaves is not taken for the whole."""
    with _opened(together, containerd_binary):
        pass
    container = make_old_store(together, together.persist / "containerd", containerd_binary)
    together.write_checkpoint()
    with _opened(together, containerd_binary) as case:
        case.backing.snapshots.prepare(container.key, "", None, {UNFINISHED: "now"})
        assert container.key in _ingest(case)
        assert "moved" in {each.result.value for each in together.run()}
        case.recover()
        _assert_has_data(case, _name(together, container))


def test_container_whose_store_went_before_a_kill_follows_it(
    together: OldDevice, containerd_binary: str
) -> None:
    """That an older store stays holds what is in it, not what has been moved already."""
    newer = make_old_store(together, together.persist / "vault/containerd", containerd_binary)
    (together.persist / "containerd").mkdir()
    (together.persist / "containerd" / "file").touch()
    together.write_checkpoint()
    cancel = Cancellation()
    with suppress(InterruptedOperationError):
        for outcome in open_upgrade(together.settings).run(cancel=cancel):
            if outcome.result.value == "moved":
                cancel.set()
    assert not together.new(newer.app).exists()
    together.run()
    assert together.new(newer.app).exists()
    assert list(iter_held(together.settings.layout)) == []


def _assert_has_data(case: Case, name: VolumeName) -> None:
    """See that a converted container has what its app wrote."""
    root = case.volumes.activate(name).rootfs
    assert (root / "written").read_text() == "by the app"
    case.volumes.deactivate(name)


def _download(device: OldDevice, kind: str, content: bytes, *, name: str = "") -> Path:
    digest = name or hashlib.sha256(content).hexdigest().upper()
    path = device.persist / "downloads" / kind / "verified" / digest / "image.file"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_downloads_are_kept_if_they_are_what_they_claim(
    device: OldDevice, containerd_binary: str
) -> None:
    """Whole ones become the verifier's and then blobs; the others are reported or removed."""
    device.write_checkpoint()
    good = [_download(device, kind, kind.encode()) for kind in ("appImg.obj", "baseOs.obj")]
    wrong = _download(device, "appImg.obj", b"wrong", name="A" * 64)
    again = _download(device, "baseOs.obj", b"appImg.obj")
    certificate = _download(device, "cert.obj", b"certificate")
    double = _download(device, "appImg.obj", b"two")
    (double.parent / "second").touch()
    pending = device.persist / "downloads/appImg.obj/pending/abc/part"
    pending.parent.mkdir(parents=True)
    pending.write_text("half")
    results = {each.planned.found.path: each.result.value for each in device.run()}
    assert results == {
        **dict.fromkeys(good, "moved"),
        again: "discarded",
        wrong: "failed",
        certificate: "left",
        double.parent: "left",
        pending.parent: "discarded",
    }
    verified = {path.name: path for path in device.settings.layout.verified.iterdir()}
    digests = {hashlib.sha256(kind).hexdigest() for kind in (b"appImg.obj", b"baseOs.obj")}
    assert set(verified) == digests
    assert {path.stat().st_mode & 0o777 for path in verified.values()} == {0o440}
    assert not (device.persist / "downloads/baseOs.obj").exists()
    os.utime(next(iter(verified.values())), (0, 0))
    with _opened(device, containerd_binary) as case:
        for _ in range(2):
            case.recover()
            case.prune.execute(case.prune.plan())
        assert {path.name for path in device.settings.layout.verified.iterdir()} == digests
        assert set(_ingest(case)) == digests
        assert list(device.settings.layout.kept_downloads.iterdir()) == []
        assert case.check_store(read_data=True).findings == ()
    report = json.loads(device.settings.layout.upgrade_report.read_bytes())
    assert report["exit_code"] == 5


def test_container_of_an_app_without_a_store_is_a_volume_that_says_what_is_missing(
    together: OldDevice, containerd_binary: str
) -> None:
    """Its directory is converted; that its snapshot is nowhere shows, and nothing is made up."""
    app = together.add(OldApp("lost"))
    together.write_checkpoint()
    together.container(app.old_name())
    together.run()
    with _opened(together, containerd_binary) as case:
        status = case.volumes.get(VolumeName.parse(together.new(app).name))
        assert status.state is VolumeState.CORRUPT
        assert app.old_name() in str(status.problem)


def test_snapshot_of_a_container_that_no_recovery_has_met_is_one_of_its_data(
    together: OldDevice, containerd_binary: str
) -> None:
    """Without its record its layers would be lost from under it; another's work is waited for."""
    container = make_old_store(together, together.persist / "containerd", containerd_binary)
    together.write_checkpoint()
    together.run()
    name = _name(together, container)
    settings = replace(together.settings, containerd_binary=containerd_binary)
    with (
        private_daemon(settings),
        Case.open(settings) as case,
        ThreadPoolExecutor(1) as pool,
    ):
        with Locks(settings.layout).volume(name):
            creating = pool.submit(case.volume_snapshots.create, [name], "first")
            with pytest.raises(TimeoutError):
                creating.result(timeout=1)
        creating.result()
        assert read_record(settings.layout.volume(name), name).chain_id is not None
        assert (case.volumes.activate(name).rootfs / "written").read_text() == "by the app"
        case.volumes.deactivate(name)
        case.recover()
        assert case.check_store().findings == ()
