"""Explanations on a real containerd: the shortest chain, and every root."""

import pytest

from cas.containerd.client import Containerd
from cas.errors import NotFoundError
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, PIN_OWNER, PIN_REASON
from cas.model.settings import Settings
from cas.store.account.why import Explanation, Why
from tests.support.images import BuiltImage, build_image
from tests.support.layers import file
from tests.support.volumes import Store, add_image, open_store, volume_name

pytestmark = pytest.mark.once  # a walk over records


@pytest.fixture
def store(containerd: Containerd, settings: Settings) -> Store:
    return open_store(containerd, settings)


def _image(store: Store, name: str = "docker.io/library/thing:1") -> BuiltImage:
    layers = [[file(f"f{number}", b"x" * number)] for number in range(2)]
    image = build_image(layers=layers).named(name)
    add_image(store, image)
    return image


def _one(store: Store, name: str, kind: str) -> Explanation:
    [found] = [each for each in Why(store.backing).explain(name) if each.kind == kind]
    return found


def test_layer_is_kept_by_its_manifest_and_image(store: Store) -> None:
    """The chain leads from the name over the manifest to the layer."""
    image = _image(store)
    found = _one(store, image.layers[1].digest, "blob")
    assert [(link.kind, link.name) for link in found.chain] == [
        ("image", image.name),
        ("blob", image.digest),
        ("blob", image.layers[1].digest),
    ]
    assert [(root.kind, root.name) for root in found.roots] == [("image", image.name)]
    assert found.kept


def test_snapshot_is_kept_by_the_image_and_every_volume(store: Store) -> None:
    """All roots are named, the chain is the shortest."""
    image = _image(store)
    names = [volume_name(), volume_name()]
    for name in names:
        store.volumes.prepare(name, image.name)
    found = _one(store, image.chain_ids[1], "snapshot")
    roots = {(root.kind, root.name) for root in found.roots}
    assert roots >= {("image", image.name), *(("volume", str(name)) for name in names)}
    # The volume's own snapshot is rooted and stands right on it.
    assert [link.kind for link in found.chain] == ["snapshot", "snapshot"]
    assert found.chain[0].reason


def test_image_may_be_asked_for_by_its_short_name(store: Store) -> None:
    """Docker's familiar form finds the image, and the volumes that use it are roots."""
    image = _image(store)
    name = volume_name()
    store.volumes.prepare(name, image.name)
    found = _one(store, "thing:1", "image")
    assert found.name == image.name
    assert ("volume", str(name)) in {(root.kind, root.name) for root in found.roots}


def test_pin_is_explained_with_owner_and_reason(store: Store) -> None:
    """Whoever pinned a blob is named."""
    data = b"pinned"
    labels = {GC_ROOT: "now", PIN_OWNER: "updater", PIN_REASON: "next release"}
    with store.leasing.hold("test") as lease:
        store.backing.content.put("t", lease.id, data, Digest.of(data), labels)
    found = _one(store, str(Digest.of(data)), "blob")
    assert found.chain[0].reason == "pinned by updater: next release"


def test_running_work_is_named_as_root(store: Store) -> None:
    """A lease shows what it is for and whose it is."""
    data = b"in hand"
    with store.leasing.hold("ingest") as lease:
        store.backing.content.put("t", lease.id, data, Digest.of(data), {})
        [root] = _one(store, str(Digest.of(data)), "blob").roots
    assert root.kind == "lease"
    assert root.reason.startswith("ingest of process ")
    assert root.reason.endswith(", running")


def test_object_without_keeper_is_gone_after_a_collection(store: Store) -> None:
    """What was kept by running work alone is not found once that has ended."""
    with store.leasing.hold("test") as lease:
        store.backing.snapshots.prepare("loose", "", lease.id, {})
        assert _one(store, "loose", "snapshot").kept
    store.backing.leases.collect_garbage()
    with pytest.raises(NotFoundError):
        Why(store.backing).explain("loose")


def test_unknown_name_is_not_found(store: Store) -> None:
    """Nothing of that name is an error, not an empty answer."""
    with pytest.raises(NotFoundError, match="no blob, image"):
        Why(store.backing).explain("sha256:" + "0" * 64)
