"""Check, repair and prune where containerd's files cannot be looked at, as from a container."""

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.store.account.usage import Usage
from cas.store.backing import Backing
from cas.store.check.check import Check
from cas.store.check.findings import Problem
from cas.store.check.repair import Repair
from cas.store.prune.prune import Prune
from cas.store.sentinel import Sentinel
from tests.support.images import BuiltImage, build_image
from tests.support.layers import file
from tests.support.volumes import Store, add_image, open_store


def _blind(backing: Backing) -> Backing:
    return replace(backing, blobs_directory=None)


@pytest.fixture
def blobs(containerd: Containerd) -> Path:
    assert containerd.blobs_directory is not None
    return containerd.blobs_directory


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    store = open_store(containerd, settings, adapt=_blind)
    Sentinel(store.backing).ensure()
    return store


def _image(store: Store) -> BuiltImage:
    image = build_image(layers=[[file("f", secrets.token_bytes(100_000))]])
    add_image(store, image)
    return image


def test_bad_blob_is_found_by_reading_over_the_socket_and_removed(
    store: Store, blobs: Path
) -> None:
    """Nothing but containerd's own answers is needed."""
    image = _image(store)
    check = Check(store.backing, platform=store.images.platform)
    assert list(check.run(read_data=True)) == []
    path = blobs / image.layers[0].digest.removeprefix("sha256:")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert list(check.run()) == []
    found = list(check.run(read_data=True))
    assert [(each.problem, each.object) for each in found] == [
        (Problem.BLOB_CONTENT, image.layers[0].digest)
    ]
    repair = Repair(
        store.backing, images=store.images, unpack=store.unpack, recover=store.volumes.recover
    )
    assert [each.done for each in repair.repair(found)] == [True]
    assert not path.exists()
    store.backing.images.delete(image.name)
    add_image(store, image)
    assert list(check.run(read_data=True)) == []


def test_lost_file_is_found_by_reading(store: Store, blobs: Path) -> None:
    """A record without a file cannot be read, and that is what is reported."""
    image = _image(store)
    (blobs / image.layers[0].digest.removeprefix("sha256:")).unlink()
    found = Check(store.backing, platform=store.images.platform).run(read_data=True)
    assert [each.problem for each in found] == [Problem.BLOB_UNREADABLE]


def test_prune_counts_by_record_and_frees(store: Store, blobs: Path) -> None:
    """Sizes are those of the records, and files go all the same."""
    image = _image(store)
    prune = Prune(store.backing)
    plan = prune.plan()
    sizes = {each.name: each.size for each in plan.objects if each.kind == "blob"}
    assert sizes == {digest: len(data) for digest, data in image.blobs.items()}
    result = prune.execute(plan)
    assert result.skipped == ()
    assert not (blobs / Digest.parse(image.digest).hex).exists()


def test_usage_takes_content_from_the_records(store: Store) -> None:
    """What cannot be walked is still accounted for, once."""
    image = _image(store)
    entries = Usage(store.backing).measure().entries
    [content] = [entry for entry in entries if entry.part == "content"]
    assert content.size >= sum(map(len, image.blobs.values()))
    assert content.objects == len(list(store.backing.content.iter_blobs()))
