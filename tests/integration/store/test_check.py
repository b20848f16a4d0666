"""Check and repair on a real containerd: silent on a healthy store, precise on each damage."""

import math
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import BlobNotFoundError, ContentMissingError, InterruptedOperationError
from cas.fsops.locks import lock
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import DURABLE, GC_REF_CONTENT
from cas.model.records import BlobInfo
from cas.model.settings import Settings
from cas.store.check.check import Check
from cas.store.check.findings import Finding, Problem
from cas.store.check.repair import Repair, Repaired
from cas.store.sentinel import Sentinel
from tests.support.images import BuiltImage, build_image, layered_image
from tests.support.layers import file
from tests.support.stores import utc_now
from tests.support.volumes import add_image, open_store, volume_name


class Shop:
    """A store with its check and its repair."""

    def __init__(self, containerd: Containerd, settings: Settings) -> None:
        self.store = open_store(containerd, settings)
        self.containerd = containerd
        Sentinel(self.store.backing).ensure()

    def _others(self) -> Iterator[tuple[str, object]]:
        own = self.store.settings.namespace
        for name in self.containerd.namespaces.iter_namespaces():
            if name != own:
                yield name, self.containerd.in_namespace(name).content

    def checker(self) -> Check:
        return Check(
            self.store.backing,
            platform=self.store.images.platform,
            judge=self.store.volumes.iter_volumes,
            others=self._others,  # type: ignore[arg-type]  # the adapter fits the protocol
        )

    def check(self, *, read_data: bool = False) -> list[Finding]:
        return list(self.checker().run(read_data=read_data))

    def problems(self) -> list[tuple[Problem, str]]:
        return [(finding.problem, finding.object) for finding in self.check()]

    def repair(self, findings: list[Finding]) -> list[Repaired]:
        store = self.store
        repair = Repair(
            store.backing,
            images=store.images,
            unpack=store.unpack,
            recover=store.volumes.recover,
        )
        return list(repair.repair(findings))

    def add(self, name: str = "example.com/image:1", layers: int = 2) -> BuiltImage:
        image = build_image(
            layers=[[file(f"f{n}", secrets.token_bytes(50_000))] for n in range(layers)]
        ).named(name)
        add_image(self.store, image)
        return image

    def file(self, digest: str) -> Path:
        directory = self.store.backing.blobs_directory
        assert directory is not None
        return directory / digest.removeprefix("sha256:")


@pytest.fixture
def shop(containerd: Containerd, settings: Settings) -> Shop:
    return Shop(containerd, settings)


def _flip(path: Path) -> None:
    """Change one byte and nothing that a look at the inode would show."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _become_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def test_healthy_store_in_use_has_no_findings(shop: Shop) -> None:
    """Images, volumes mounted and not, pinned blobs, running work: nothing is reported."""
    image, other = shop.add(), shop.add("example.com/other:1")
    first, second = volume_name(), volume_name()
    shop.store.volumes.prepare(first, image.name, activate=True)
    shop.store.volumes.prepare(second, other.name, read_only=True)
    with shop.store.leasing.hold("work") as lease:
        data = b"held by work"
        shop.store.backing.content.put("t", lease.id, data, Digest.of(data), {})
        assert shop.check(read_data=True) == []


@pytest.mark.parametrize(
    ("damage", "cheap", "problem"),
    [
        (Path.unlink, True, Problem.BLOB_FILE_MISSING),
        (_cut, True, Problem.BLOB_SIZE),
        (_become_symlink, True, Problem.BLOB_UNREADABLE),
        (_flip, False, Problem.BLOB_CONTENT),
    ],
)
def test_damaged_layer_is_found_named_and_set_aside(
    shop: Shop, damage: Callable[[Path], None], cheap: bool, problem: Problem
) -> None:
    """The finding names image and volume; repair makes room for the content to come again."""
    image = shop.add()
    name = volume_name()
    shop.store.volumes.prepare(name, image.name)
    layer = image.layers[0].digest
    damage(shop.file(layer))
    found = [each for each in shop.check(read_data=not cheap) if each.problem is problem]
    assert [each.object for each in found] == [layer]
    assert (found[0].invariant, found[0].fixable) == (1, True)
    assert found[0].images == (image.name,)
    assert found[0].volumes == (str(name),)
    [repaired] = shop.repair(found)
    assert repaired.done
    with pytest.raises(BlobNotFoundError):
        shop.store.backing.content.info(Digest.parse(layer))
    assert not os.path.lexists(shop.file(layer))
    # What remains is what only the content itself can heal, and it does.
    assert shop.problems() == [(Problem.IMAGE_CONTENT_MISSING, layer)]
    shop.store.backing.images.delete(image.name)
    add_image(shop.store, image)
    assert shop.check(read_data=True) == []
    assert shop.store.volumes.get(name).problem is None


def test_blob_content_flip_is_invisible_to_the_cheap_check(shop: Shop) -> None:
    """The cheap check reads no data; that is what it is cheap for."""
    image = shop.add()
    _flip(shop.file(image.layers[0].digest))
    assert shop.check() == []


def test_damage_that_was_quarantined_is_kept_for_people(shop: Shop) -> None:
    """The bad bytes are not destroyed: they lie in the quarantine under the digest."""
    image = shop.add()
    path = shop.file(image.layers[0].digest)
    _flip(path)
    bad = path.read_bytes()
    shop.repair(shop.check(read_data=True))
    kept = list(shop.store.settings.layout.quarantine.iterdir())
    assert [file.name.partition(".")[0] for file in kept] == [path.name]
    assert kept[0].read_bytes() == bad


def test_writable_blob_with_right_bytes_is_made_safe_again(shop: Shop) -> None:
    """Owner and mode are put back; the blob stays."""
    image = shop.add()
    path = shop.file(image.layers[0].digest)
    path.chmod(0o644)
    os.chown(path, 1000, 1000)
    assert shop.problems() == [(Problem.BLOB_FILE_UNSAFE, image.layers[0].digest)]
    shop.repair(shop.check())
    assert shop.check(read_data=True) == []
    assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o444, 0)


def test_damaged_manifest_is_reported_for_its_image(shop: Shop) -> None:
    """An image whose manifest lies is named, by data and by document."""
    image = shop.add()
    _flip(shop.file(image.digest))
    found = shop.check(read_data=True)
    assert {each.problem for each in found} == {Problem.IMAGE_DOCUMENT, Problem.BLOB_CONTENT}
    assert {name for each in found for name in each.images} == {image.name}


def test_every_missing_layer_is_named_at_once(shop: Shop) -> None:
    """The check does not stop at the first blob that is absent."""
    image = shop.add(layers=3)
    gone = [image.layers[0].digest, image.layers[2].digest]
    for digest in gone:
        shop.store.backing.content.delete(Digest.parse(digest))
    # Otherwise the files stay for as long as containerd likes.
    shop.store.backing.leases.collect_garbage()
    found = shop.problems()
    assert sorted(found) == sorted((Problem.IMAGE_CONTENT_MISSING, digest) for digest in gone)


def test_layer_that_only_its_owner_gives_out_is_not_missed(shop: Shop, tmp_path: Path) -> None:
    """A hole that is known is no finding; unpacking says where to get the layer."""
    image = layered_image(2).with_foreign_layer(1, ["https://example.com/layer"])
    archive = image.without(image.layers[1].digest).write_oci_tar(tmp_path / "image.tar")
    shop.store.images.import_archive(archive)
    assert shop.check(read_data=True) == []
    with pytest.raises(ContentMissingError, match=r"https://example\.com/layer.*blob ingest"):
        shop.store.unpack_image(image.name)
    assert shop.check() == []


def test_missing_labels_are_found_and_set_again(shop: Shop) -> None:
    """References that containerd's collector needs come back from the document."""
    image = shop.add()
    manifest = Digest.parse(image.digest)
    # A lease keeps the content from the collector meanwhile, as luck would.
    with shop.store.leasing.hold("test") as lease:
        for digest in image.blobs:
            lease.pin_blob(Digest.parse(digest))
        shop.store.backing.content.update_labels(
            manifest, {f"{GC_REF_CONTENT}.l.1": None, f"{GC_REF_CONTENT}.config": None}
        )
        assert shop.problems() == [(Problem.IMAGE_LABELS, image.digest)]
        [repaired] = shop.repair(shop.check())
        assert repaired.done
    shop.store.backing.leases.collect_garbage()
    assert shop.check(read_data=True) == []


def test_foreign_name_in_the_blobs_directory_is_moved_aside(shop: Shop) -> None:
    """A name that stops containerd's collection is found, moved away, and files go again."""
    image = shop.add()
    junk = shop.file("sha256:junk.tmp")
    junk.write_bytes(b"junk")
    assert shop.problems() == [(Problem.FOREIGN_FILE, str(junk))]
    shop.repair(shop.check())
    assert not junk.exists()
    assert shop.check() == []
    shop.store.backing.images.delete(image.name, sync=True)
    assert not shop.file(image.layers[0].digest).exists()


def test_file_without_record_is_removed_by_a_collection(shop: Shop) -> None:
    """Orphans of a crash are found and go."""
    data = secrets.token_bytes(1000)
    orphan = shop.file(str(Digest.of(data)))
    orphan.write_bytes(data)
    assert shop.problems() == [(Problem.FILE_WITHOUT_RECORD, str(Digest.of(data)))]
    [repaired] = shop.repair(shop.check())
    assert repaired.done
    assert not orphan.exists()
    assert shop.check() == []


def test_file_that_is_registered_after_the_look_is_not_waited_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ingest links the file first; one that is done meanwhile holds up no check."""
    monkeypatch.setattr("cas.store.check.leftovers._SETTLING_SECONDS", math.inf)
    store = shop.store
    data = secrets.token_bytes(1000)
    digest = Digest.of(data)
    shop.file(str(digest)).write_bytes(data)

    class Arriving:
        """The content store; the blob comes in when its record is asked for."""

        def __getattr__(self, name: str) -> object:
            return getattr(store.backing.content, name)

        def info(self, asked: Digest) -> BlobInfo:
            store.backing.content.adopt("r", lease.id, digest, len(data), {})
            return store.backing.content.info(asked)

    with store.leasing.hold("test") as lease:
        arriving = replace(store.backing, content=Arriving())  # type: ignore[arg-type]
        assert list(Check(arriving, platform=store.images.platform).run()) == []


def test_layer_of_another_client_is_synced_or_unpacked_again(shop: Shop) -> None:
    """A snapshot that nobody vouches for is reported and made durable."""
    image = shop.add()
    top = shop.store.unpack_image(image.name)
    for chain_id in image.chain_ids:
        shop.store.backing.snapshots.update_labels(chain_id, {DURABLE: None})
    assert sorted(shop.problems()) == sorted(
        (Problem.LAYER_NOT_DURABLE, chain_id) for chain_id in image.chain_ids
    )
    assert all(each.done for each in shop.repair(shop.check()))
    assert shop.check() == []
    assert top in shop.store.snapshots()


def test_volume_without_snapshot_is_reported_and_not_touched(shop: Shop) -> None:
    """What is lost is said; repair does not pretend."""
    image = shop.add()
    name = volume_name()
    shop.store.volumes.prepare(name, image.name)
    shop.store.backing.snapshots.remove(str(name))
    found = shop.check()
    assert {each.volumes for each in found} == {(str(name),)}
    assert {each.invariant for each in found} == {5}
    assert [each.done for each in shop.repair(found)] == [False] * len(found)
    assert shop.store.settings.layout.volume(name).is_dir()


def test_volume_whose_record_is_gone_is_reported(shop: Shop) -> None:
    """A directory with a volume's name that is incomplete breaks invariant 5."""
    image = shop.add()
    name = volume_name()
    shop.store.volumes.prepare(name, image.name)
    shop.store.settings.layout.volume_record(name).unlink()
    assert (Problem.VOLUME, str(name)) in shop.problems()


def test_leftovers_of_volumes_are_finished(shop: Shop) -> None:
    """Hidden directories of interrupted operations are found and recovered."""
    layout = shop.store.settings.layout
    name = volume_name()
    layout.volume_preparing(name).mkdir()
    image = shop.add()
    removed = volume_name()
    shop.store.volumes.prepare(removed, image.name)
    layout.volume(removed).rename(layout.volume_removing(removed))
    assert sorted(shop.problems()) == sorted(
        (Problem.VOLUME_LEFTOVER, str(path))
        for path in (layout.volume_preparing(name), layout.volume_removing(removed))
    )
    assert all(each.done for each in shop.repair(shop.check()))
    assert shop.check() == []


def test_mount_without_volume_is_reported(shop: Shop) -> None:
    """A mount point in the volumes directory that is none of ours is named, not touched."""
    place = shop.store.settings.layout.volumes / "stray"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    try:
        assert (Problem.FOREIGN_MOUNT, str(place)) in shop.problems()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_abandoned_partial_file_is_removed_after_a_day(
    containerd: Containerd, shop: Shop, settings: Settings
) -> None:
    """A partial ingest is kept for the next try, but not for ever."""
    path = settings.layout.staged(Digest.of(b"never came"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"never")
    assert shop.check() == []
    yesterday = (utc_now() - timedelta(hours=25)).timestamp()
    os.utime(path, (yesterday, yesterday))
    assert shop.problems() == [(Problem.STAGED_FILE, str(path))]
    shop.repair(shop.check())
    assert not path.exists()


_DIE = """
import os, signal, sys
from pathlib import Path
from cas.model.settings import Settings
from cas.store.layers.extraction_key import extraction_key
from cas.model.digest import ChainID
from tests.support.daemon import connect
from tests.support.stores import utc_now
from tests.support.volumes import open_store
settings = Settings(persist=Path(sys.argv[1]), address=Path(sys.argv[2]), namespace=sys.argv[3])
store = open_store(connect(settings), settings)
with store.leasing.hold("unpack") as lease:
    store.backing.snapshots.prepare(extraction_key(ChainID("0" * 64)), "", lease.id, {})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_unpack_left_is_found_and_removed(shop: Shop, settings: Settings) -> None:
    """Lease and key of a dead process are reported and go."""
    arguments = [str(settings.persist), str(settings.socket), settings.namespace]
    subprocess.run(
        [sys.executable, "-c", _DIE, *arguments], check=False, cwd=Path(__file__).parents[3]
    )
    assert {problem for problem, _ in shop.problems()} == {Problem.LEASE, Problem.EXTRACTION}
    assert all(each.done for each in shop.repair(shop.check()))
    assert shop.check() == []
    assert shop.store.snapshots() == set()


def test_reading_with_a_time_limit_goes_on_where_it_stopped(shop: Shop) -> None:
    """Each run reads at least one blob and the last completes the round; then it begins anew."""
    for number in range(3):
        shop.add(f"example.com/{number}:1", layers=1)
    total = sum(1 for _ in shop.store.backing.content.iter_blobs())
    read, runs = 0, 0
    while True:
        run = shop.checker().run(read_data=True, max_duration=timedelta(0))
        assert list(run) == []
        assert run.scrub is not None
        assert run.scrub.blobs == 1
        read, runs = read + run.scrub.blobs, runs + 1
        assert run.scrub.remaining == total - read
        if run.scrub.complete:
            break
    assert (read, runs) == (total, total)
    assert not shop.store.settings.layout.scrub_cursor.exists()
    run = shop.checker().run(read_data=True)
    list(run)
    assert run.scrub is not None
    assert run.scrub.blobs == total


def test_damage_is_found_whichever_run_meets_it(shop: Shop) -> None:
    """Limited runs together find what one long run finds."""
    images = [shop.add(f"example.com/{number}:1", layers=1) for number in range(3)]
    damaged = {image.layers[0].digest for image in images[:2]}
    for digest in damaged:
        _flip(shop.file(digest))
    found, complete = set(), False
    while not complete:
        run = shop.checker().run(read_data=True, max_duration=timedelta(0))
        found |= {finding.object for finding in run}
        complete = run.scrub is not None and run.scrub.complete
    assert found == damaged


def test_damaged_cursor_begins_a_new_round(shop: Shop) -> None:
    """The cursor is only a convenience: nonsense in it costs time, not truth."""
    shop.add()
    cursor = shop.store.settings.layout.scrub_cursor
    cursor.parent.mkdir(parents=True, exist_ok=True)
    for nonsense in (b"", b"{", b"[]", b'{"last": 7}', b'{"last": "sha256:zz"}'):
        cursor.write_bytes(nonsense)
        run = shop.checker().run(read_data=True)
        assert list(run) == []
        assert run.scrub is not None
        assert run.scrub.complete
        assert run.scrub.blobs == sum(1 for _ in shop.store.backing.content.iter_blobs())


def test_cancelled_reading_keeps_its_place(shop: Shop) -> None:
    """An interruption is no finding, and the next run goes on."""
    shop.add()
    checker = shop.checker()
    list(checker.run(read_data=True, max_duration=timedelta(0)))
    cursor = shop.store.settings.layout.scrub_cursor.read_bytes()
    cancel = Cancellation()
    cancel.set()
    with pytest.raises(InterruptedOperationError):
        list(checker.run(read_data=True, cancel=cancel))
    after = shop.store.settings.layout.scrub_cursor.read_bytes()
    assert after.partition(b"updated")[0] == cursor.partition(b"updated")[0]


def test_directory_of_a_killed_unpack_is_found_and_removed(shop: Shop) -> None:
    """It is found without its lease and key, too; that of a living unpack is left alone."""
    unpacking = shop.store.backing.layout.unpacking
    killed = unpacking / "killed"
    (killed / "fs").mkdir(parents=True)
    (killed / "fs" / "file").write_bytes(b"of a layer")
    killed.with_suffix(".lock").touch()
    (unpacking / "living").mkdir()
    with lock(unpacking / "living.lock"):
        assert shop.problems() == [(Problem.UNPACK, str(killed))]
        [repaired] = shop.repair(shop.check())
        assert repaired.done
        assert shop.problems() == []
        assert not killed.exists()
        assert (unpacking / "living").is_dir()
    shop.store.volumes.recover()
    assert list(unpacking.iterdir()) == []
