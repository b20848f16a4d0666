"""Prune on a real containerd: exactly the plan, nothing that is needed, space comes back."""

import secrets
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import BlobNotFoundError, StoreMetadataLostError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, KEEP, LAST_USED, PIN_OWNER, PIN_REASON, STORE_ID
from cas.model.media_types import OCI_INDEX
from cas.model.settings import Settings
from cas.store.account.inventory import OtherContent
from cas.store.filters import BlobFilters, ImageFilters
from cas.store.prune.plan import Action, Goal, PrunePlan
from cas.store.prune.prune import Prune, PruneResult
from cas.store.prune.selection import Scope, Selection, parse_selection
from tests.support.daemon import WAIT_SECONDS, connect
from tests.support.images import BuiltImage, build_image, build_index
from tests.support.layers import file
from tests.support.stores import utc_now
from tests.support.volumes import Store, add_image, open_store, volume_name

_MIB = 1024 * 1024


@pytest.fixture
def prune(store: Store, others: OtherContent) -> Prune:
    return Prune(store.backing, others=others)


def _image(name: str, *layers: bytes) -> BuiltImage:
    """An image whose layers hold one incompressible file each."""
    return build_image(
        layers=[[file(f"data{number}", data)] for number, data in enumerate(layers)]
    ).named(name)


def _random(size: int = _MIB) -> bytes:
    return secrets.token_bytes(size)


def _names(plan: PrunePlan, kind: str, action: Action = Action.REMOVE) -> set[str]:
    return {each.name for each in plan.objects if (each.kind, each.action) == (kind, action)}


def _pin(store: Store, data: bytes, **labels: str) -> Digest:
    digest = Digest.of(data)
    with store.leasing.hold("test") as lease:
        store.backing.content.put(
            f"test-{digest}", lease.id, data, digest, {GC_ROOT: "now", **labels}
        )
    return digest


def _file(store: Store, digest: str) -> Path:
    assert store.backing.blobs_directory is not None
    return store.backing.blobs_directory / digest.removeprefix("sha256:")


def _done(result: PruneResult) -> None:
    assert result.skipped == ()


def _set_last_used(store: Store, name: str, age: timedelta) -> None:
    record = store.backing.images.get(name)
    moment = (utc_now() - age).strftime("%Y-%m-%dT%H:%M:%SZ")
    store.backing.images.update_labels(record, {LAST_USED: moment})


def test_plan_of_an_empty_store_is_empty_and_its_run_changes_nothing(prune: Prune) -> None:
    """With nothing to remove there is nothing planned, and running that is fine."""
    plan = prune.plan()
    assert plan.objects == ()
    assert prune.execute(plan).removed == ()


def test_prune_of_an_unused_image_frees_its_blobs_and_snapshots(store: Store, prune: Prune) -> None:
    """Name, blobs and unpacked layers go; the planned bytes are those that come free."""
    image = _image("example.com/unused:1", _random(), _random())
    add_image(store, image)
    store.unpack_image(image.name)
    plan = prune.plan()
    assert _names(plan, "image") == {image.name}
    assert _names(plan, "blob", Action.COLLECT) == set(image.blobs)
    assert _names(plan, "snapshot", Action.COLLECT) == set(image.chain_ids)
    allocated = sum(_file(store, digest).stat().st_blocks * 512 for digest in image.blobs)
    assert plan.size >= allocated + 2 * _MIB
    result = prune.execute(plan)
    _done(result)
    assert result.size == plan.size
    assert [blob for blob in image.blobs if _file(store, blob).exists()] == []
    assert store.snapshots() == set()


def test_plan_changes_nothing(store: Store, prune: Prune) -> None:
    """A dry run is a plan: afterwards everything is as before."""
    image = _image("example.com/unused:1", _random())
    add_image(store, image)
    before = {str(blob.digest): blob.labels for blob in store.backing.content.iter_blobs()}
    assert prune.plan().objects
    store.backing.leases.collect_garbage()
    after = {str(blob.digest): blob.labels for blob in store.backing.content.iter_blobs()}
    assert before == after
    assert [record.name for record in store.backing.images.iter_images()] == [image.name]


def test_prune_leaves_what_a_volume_uses(store: Store, prune: Prune) -> None:
    """An image with a volume stays, with layers that it shares with a pruned one."""
    shared = _random()
    used = _image("example.com/used:1", shared, _random())
    unused = _image("example.com/unused:1", shared, _random())
    add_image(store, used)
    add_image(store, unused)
    name = volume_name()
    store.volumes.prepare(name, used.name)
    store.unpack_image(unused.name)
    result = prune.execute(prune.plan())
    _done(result)
    assert [record.name for record in store.backing.images.iter_images()] == [used.name]
    assert {blob for blob in used.blobs if not _file(store, blob).exists()} == set()
    assert store.snapshots() == {str(name), *used.chain_ids}
    assert not _file(store, unused.layers[1].digest).exists()


def test_prune_leaves_images_by_label_and_filter(store: Store, prune: Prune) -> None:
    """The keep label and filters that do not match keep an image."""
    kept, other, gone = (_image(f"example.com/{name}:1", _random()) for name in "abc")
    for image in (kept, other, gone):
        add_image(store, image)
    store.backing.images.update_labels(store.backing.images.get(kept.name), {KEEP: "yes"})
    selection = parse_selection(["reference=example.com/[ac]*"], now=utc_now())
    plan = prune.plan(selection)
    assert _names(plan, "image") == {gone.name}


def test_prune_without_filter_leaves_pinned_blobs(store: Store, prune: Prune) -> None:
    """A pin was asked for; only a filter takes it away."""
    digest = _pin(store, _random())
    assert prune.plan().objects == ()
    assert prune.plan(parse_selection([], now=utc_now(), scope=Scope.BLOBS)).objects == ()
    assert store.backing.content.info(digest).labels[GC_ROOT]


def test_prune_of_selected_pins_frees_them_and_only_them(store: Store, prune: Prune) -> None:
    """A filter selects pinned blobs; the others and the sentinel stay."""
    gone = _pin(store, _random(), **{PIN_OWNER: "tester", PIN_REASON: "because"})
    kept = _pin(store, _random(), keep="yes")
    selection = parse_selection(["label!=keep"], now=utc_now(), scope=Scope.BLOBS)
    plan = prune.plan(selection)
    assert _names(plan, "blob", Action.UNPIN) == {str(gone)}
    [planned] = plan.objects
    assert "tester: because" in planned.reason
    result = prune.execute(plan)
    _done(result)
    assert not _file(store, str(gone)).exists()
    assert _file(store, str(kept)).exists()
    assert any(STORE_ID in blob.labels for blob in store.backing.content.iter_blobs())


def test_pinned_blob_that_an_image_needs_is_not_planned(store: Store, prune: Prune) -> None:
    """Reachable is never removed, pinned or not."""
    image = _image("example.com/used:1", _random())
    add_image(store, image)
    store.volumes.prepare(volume_name(), image.name)
    layer = Digest.parse(image.layers[0].digest)
    store.backing.content.update_labels(layer, {GC_ROOT: "now"})
    plan = prune.plan(Selection(images=ImageFilters(), pins=BlobFilters()))
    assert plan.objects == ()


def test_blob_pinned_again_after_the_plan_is_skipped(store: Store, prune: Prune) -> None:
    """Who asks for a blob between plan and run keeps it."""
    digest = _pin(store, _random())
    plan = prune.plan(Selection(images=None, pins=BlobFilters()))
    store.backing.content.update_labels(digest, {PIN_OWNER: "late"})
    result = prune.execute(plan)
    assert [each.planned.name for each in result.skipped] == [str(digest)]
    assert store.backing.content.info(digest).labels[GC_ROOT]


def test_image_used_after_the_plan_is_skipped_with_its_content(store: Store, prune: Prune) -> None:
    """A volume prepared between plan and run keeps its image; the result says so."""
    image = _image("example.com/soon:1", _random())
    add_image(store, image)
    plan = prune.plan()
    store.volumes.prepare(volume_name(), image.name)
    result = prune.execute(plan)
    assert result.removed == ()
    assert image.name in {each.planned.name for each in result.skipped}
    assert store.images.resolve(image.name).manifest.digest == Digest.parse(image.digest)


def test_image_moved_after_the_plan_is_skipped(store: Store, prune: Prune) -> None:
    """A name that points elsewhere by now is another image."""
    old, new = (_image("example.com/moving:1", _random()) for _ in range(2))
    add_image(store, old)
    plan = prune.plan()
    store.backing.images.delete(old.name)
    add_image(store, new)
    result = prune.execute(plan)
    assert old.name in {each.planned.name for each in result.skipped}
    assert store.backing.images.get(new.name).target.digest == Digest.parse(new.digest)


def test_content_under_a_live_lease_survives(store: Store, prune: Prune) -> None:
    """What running work holds stays, named or not."""
    image = _image("example.com/working:1", _random())
    data = _random()
    with store.leasing.hold("work") as lease:
        store.backing.content.put("test-held", lease.id, data, Digest.of(data), {})
        add_image(store, image)
        lease.pin_blob(Digest.parse(image.digest))
        plan = prune.plan()
        assert plan.objects == ()
        prune.execute(plan)
        assert _file(store, str(Digest.of(data))).exists()
        assert store.images.exists(image.name)


def test_image_whose_manifest_is_leased_after_the_plan_is_skipped(
    store: Store, prune: Prune
) -> None:
    """A prepare that began meanwhile pins the manifest below an index; its image stays."""
    image = _image("example.com/indexed:1", _random())
    index = build_index([image])
    references = {
        index.digest: {"containerd.io/gc.ref.content.m.0": image.digest},
        image.digest: {"containerd.io/gc.ref.content.config": image.config_digest},
    }
    with store.leasing.hold("test") as lease:
        for text, data in index.blobs.items():
            labels = {GC_ROOT: "now", **references.get(text, {})}
            store.backing.content.put(f"t{text}", lease.id, data, Digest.parse(text), labels)
    target = Descriptor(OCI_INDEX, Digest.parse(index.digest), int(index.root["size"]))
    store.backing.images.create(index.name, target, {})
    plan = prune.plan()
    assert _names(plan, "image") == {index.name}
    with store.leasing.hold("work") as lease:
        lease.pin_blob(Digest.parse(image.digest))
        assert _names(prune.plan(), "image") == set()
        result = prune.execute(plan)
        assert {each.planned.name for each in result.skipped} == {index.name}
        assert store.images.exists(index.name)


_HOLD = """
import sys
from dataclasses import replace
from pathlib import Path
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.media_types import OCI_INDEX
from cas.model.settings import Settings
from tests.support.daemon import WAIT_SECONDS, connect
from tests.support.stores import utc_now
from tests.support.volumes import open_store
settings = Settings(persist=Path(sys.argv[1]), address=Path(sys.argv[2]), namespace=sys.argv[3])
containerd = connect(settings)
store = open_store(containerd, settings)
with store.leasing.hold("work") as lease:
    data = sys.argv[4].encode()
    store.backing.content.put("test-dead", lease.id, data, Digest.of(data), {})
    with store.backing.content.open_writer("test-half", lease.id, total=100) as writer:
        writer.write(b"half")
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""


def _die_holding(settings: Settings, text: str) -> None:
    """Let a process die with a lease, a blob that only the lease holds, and half a write."""
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            _HOLD,
            str(settings.persist),
            str(settings.socket),
            settings.namespace,
            text,
        ],
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert finished.returncode == -9


def test_leases_and_writes_of_dead_processes_go(
    store: Store, prune: Prune, settings: Settings
) -> None:
    """What a killed process held is planned and gone after the run."""
    _die_holding(settings, "left by the dead")
    left = str(Digest.of(b"left by the dead"))
    plan = prune.plan()
    assert len(_names(plan, "lease")) == 1
    assert _names(plan, "blob", Action.COLLECT) == {left}
    assert _names(plan, "ingest", Action.COLLECT) == {"test-half"}
    _done(prune.execute(plan))
    assert list(store.backing.leases.iter_leases()) == []
    assert list(store.backing.content.iter_ingests()) == []
    assert not _file(store, left).exists()


def test_file_without_record_goes(store: Store, prune: Prune) -> None:
    """A blob's file that a crash left behind is planned with its bytes, and removed."""
    data = _random()
    path = _file(store, str(Digest.of(data)))
    path.write_bytes(data)
    plan = prune.plan()
    assert [(each.kind, each.name, each.size) for each in plan.objects] == [
        ("file", path.name, path.stat().st_blocks * 512)
    ]
    _done(prune.execute(plan))
    assert not path.exists()


def test_blob_of_another_namespace_counts_nothing_and_keeps_its_file(
    store: Store, prune: Prune, settings: Settings
) -> None:
    """Bytes that another namespace holds do not come free, and the plan does not say so."""
    image = _image("example.com/shared:1", _random())
    add_image(store, image)
    layer = Digest.parse(image.layers[0].digest)
    other = connect(settings)
    neighbour = other.in_namespace(f"{settings.namespace}-n")
    lease = neighbour.leases.create("l", {})  # type: ignore[arg-type]
    neighbour.content.put("r", lease.id, image.blobs[str(layer)], layer, {GC_ROOT: "now"})
    try:
        plan = prune.plan()
        sizes = {each.name: each.size for each in plan.objects}
        assert sizes[str(layer)] == 0
        _done(prune.execute(plan))
        assert _file(store, str(layer)).exists()
        with pytest.raises(BlobNotFoundError):
            store.backing.content.info(layer)
    finally:
        neighbour.content.delete(layer)
        neighbour.leases.delete(lease.id, sync=True)
        neighbour.namespaces.delete(f"{settings.namespace}-n")
        other.close()


def test_goal_takes_the_least_recently_used_images_first(store: Store, prune: Prune) -> None:
    """Only as much as needed goes, oldest use first, whatever was created when."""
    images = [_image(f"example.com/{number}:1", _random()) for number in range(3)]
    for image, days in zip(images, (10, 30, 20), strict=True):
        add_image(store, image)
        _set_last_used(store, image.name, timedelta(days=days))
    everything = prune.plan().size
    total = prune.plan(goal=Goal(keep_at_most=0)).needed
    assert total is not None
    plan = prune.plan(goal=Goal(keep_at_most=total - everything // 2))
    assert _names(plan, "image") == {images[1].name, images[2].name}
    assert plan.missing == 0
    result = prune.execute(plan)
    _done(result)
    assert result.missing == 0
    assert prune.plan(goal=Goal(keep_at_most=total - everything // 2)).objects == ()


def test_goal_counts_a_shared_layer_for_the_image_that_goes_last(
    store: Store, prune: Prune
) -> None:
    """Removing one of two that share a layer does not free the layer, and is not counted so."""
    big = _random(4 * _MIB)
    old = _image("example.com/old:1", big, _random())
    new = _image("example.com/new:1", big, _random())
    for image, days in ((old, 20), (new, 10)):
        add_image(store, image)
        _set_last_used(store, image.name, timedelta(days=days))
    total = prune.plan(goal=Goal(keep_at_most=0)).needed
    assert total is not None
    plan = prune.plan(goal=Goal(keep_at_most=total - _MIB // 2))
    assert _names(plan, "image") == {old.name}
    assert plan.size < 2 * _MIB
    plan = prune.plan(goal=Goal(keep_at_most=total - 3 * _MIB))
    assert _names(plan, "image") == {old.name, new.name}


def test_goal_out_of_reach_says_what_holds_the_rest(store: Store, prune: Prune) -> None:
    """What is missing is told, with the largest keepers and their reasons."""
    image = _image("example.com/used:1", _random())
    add_image(store, image)
    name = volume_name()
    store.volumes.prepare(name, image.name)
    pinned = _pin(store, _random(3 * _MIB), **{PIN_OWNER: "tester"})
    plan = prune.plan(goal=Goal(keep_at_most=0))
    assert plan.objects == ()
    assert plan.missing == plan.needed
    first, second = plan.holders[:2]
    assert (first.kind, first.name) == ("blob", str(pinned))
    assert "tester" in first.reason
    assert (second.kind, second.name) == ("volume", str(name))
    assert second.size >= 2 * _MIB


def test_min_free_that_is_met_removes_no_image(store: Store, prune: Prune) -> None:
    """A goal that is reached already lets everything stay."""
    image = _image("example.com/unused:1", _random())
    add_image(store, image)
    assert prune.plan(goal=Goal(min_free=1)).objects == ()
    missing = prune.plan(goal=Goal(min_free=2**60))
    assert _names(missing, "image") == {image.name}
    assert missing.missing > 0


def test_prune_repeated_is_prune_once(store: Store, prune: Prune) -> None:
    """The same plan again, and a new plan, find nothing to do and do no harm."""
    image = _image("example.com/unused:1", _random())
    add_image(store, image)
    plan = prune.plan()
    prune.execute(plan)
    again = prune.execute(plan)
    assert again.skipped == ()
    assert prune.plan().objects == ()


def _begin_write(settings: Settings, containerd: Containerd, ref: str) -> None:
    """Let another client begin a write without a lease, and die."""
    command = ["ctr", "-a", str(settings.socket), "-n", settings.namespace]
    with subprocess.Popen(
        [*command, "content", "ingest", ref],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as client:
        assert client.stdin is not None
        client.stdin.write(b"some bytes")
        client.stdin.flush()
        deadline = time.monotonic() + WAIT_SECONDS
        while not list(containerd.content.iter_ingests()):
            assert time.monotonic() < deadline
        client.kill()


def test_abandoned_write_goes_after_an_hour_and_not_before(
    store: Store, others: OtherContent, containerd: Containerd
) -> None:
    """Another client's unleased write is left alone while it may go on."""
    _begin_write(store.settings, containerd, "test-abandoned")
    assert Prune(store.backing, others=others).plan().objects == ()
    later = utc_now() + timedelta(hours=2)
    future = open_store(containerd, store.settings, clock=lambda: later)
    prune = Prune(future.backing, others=others)
    plan = prune.plan()
    assert _names(plan, "ingest") == {"test-abandoned"}
    _done(prune.execute(plan))
    assert list(containerd.content.iter_ingests()) == []


def test_lost_metadata_forbids_the_run(store: Store, prune: Prune, settings: Settings) -> None:
    """When containerd's database is not the store's, nothing is deleted."""
    image = _image("example.com/unused:1", _random())
    add_image(store, image)
    plan = prune.plan()
    store.backing.namespaces.set_labels(settings.namespace, {STORE_ID: ""})
    for blob in list(store.backing.content.iter_blobs([f'labels."{STORE_ID}"'])):
        store.backing.content.delete(blob.digest)
    with pytest.raises(StoreMetadataLostError):
        prune.execute(plan)
    assert store.images.exists(image.name)
