"""Image records, on a real containerd."""

import pytest

from cas.containerd.client import Containerd
from cas.errors import AlreadyExistsError, ImageNotFoundError, InvalidNameError, UsageError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import MAX_LABEL_BYTES
from cas.model.records import LeaseID
from cas.store import ports

NAME = "docker.io/library/alpine:3.20"
TARGET = Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(b"one"), 3)
OTHER = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"other"), 5)


@pytest.fixture
def images(containerd: Containerd) -> ports.ImageStore:
    """The port under test."""
    return containerd.images


def test_create_image_can_be_got_and_listed(images: ports.ImageStore) -> None:
    """The record holds name, target and labels; the content need not exist."""
    made = images.create(NAME, TARGET, {"a": "b"})

    assert (made.name, made.target, made.labels) == (NAME, TARGET, {"a": "b"})
    assert images.get(NAME) == made
    assert list(images.iter_images()) == [made]


def test_create_image_of_a_taken_name_is_refused(images: ports.ImageStore) -> None:
    """A name is replaced by update only."""
    images.create(NAME, TARGET, {})
    with pytest.raises(AlreadyExistsError):
        images.create(NAME, OTHER, {})
    assert images.get(NAME).target == TARGET


def test_create_image_with_impossible_target_is_refused(images: ports.ImageStore) -> None:
    """containerd takes no target of size 0."""
    with pytest.raises(UsageError):
        images.create(NAME, Descriptor("a/b", Digest.of(b""), 0), {})


def test_get_absent_image_is_not_found(images: ports.ImageStore) -> None:
    """And says which."""
    with pytest.raises(ImageNotFoundError, match="nothing"):
        images.get("nothing")


def test_update_target_keeps_labels_unless_given(images: ports.ImageStore) -> None:
    """Moving a name is one step."""
    images.create(NAME, TARGET, {"a": "b"})

    assert images.update_target(NAME, OTHER).labels == {"a": "b"}
    assert images.get(NAME).target == OTHER
    assert images.update_target(NAME, TARGET, {"c": "d"}).labels == {"c": "d"}
    assert images.get(NAME).target == TARGET


def test_update_target_absent_image_is_not_found(images: ports.ImageStore) -> None:
    """Updating does not create."""
    with pytest.raises(ImageNotFoundError):
        images.update_target(NAME, TARGET)


def test_update_labels_leaves_target_and_other_labels(images: ports.ImageStore) -> None:
    """Also when the record in hand is out of date."""
    record = images.create(NAME, TARGET, {"a": "1", "b": "2"})
    images.update_target(NAME, OTHER)

    updated = images.update_labels(record, {"a": None, "x/y.z": "3"})

    assert updated.labels == {"b": "2", "x/y.z": "3"}
    assert updated.target == OTHER
    assert images.update_labels(record, {}) == updated


def test_update_labels_too_long_is_refused(images: ports.ImageStore) -> None:
    """The limit is containerd's."""
    record = images.create(NAME, TARGET, {})
    with pytest.raises(InvalidNameError):
        images.update_labels(record, {"a": "x" * MAX_LABEL_BYTES})


@pytest.mark.parametrize("sync", [False, True])
def test_delete_image_twice_tells_whether_it_was_there(
    images: ports.ImageStore, sync: bool
) -> None:
    """Deleting is idempotent, with a collection and without."""
    images.create(NAME, TARGET, {})
    assert images.delete(NAME, sync=sync) is True
    assert images.delete(NAME, sync=sync) is False


def test_iter_images_filter_selects_by_name(images: ports.ImageStore) -> None:
    """Filters are containerd's own."""
    images.create(NAME, TARGET, {})
    images.create("other", OTHER, {})
    assert [image.name for image in images.iter_images(['name=="other"'])] == ["other"]


def test_image_keeps_its_target_through_a_collection(
    containerd: Containerd, lease: LeaseID
) -> None:
    """A name is a root: its content stays without a lease, and goes with the name."""
    containerd.content.put("r", lease, b"one", TARGET.digest, {})
    containerd.images.create(NAME, TARGET, {})
    containerd.leases.delete(lease, sync=True)
    assert containerd.content.read_all(TARGET.digest, limit=3) == b"one"

    containerd.images.delete(NAME, sync=True)
    assert list(containerd.content.iter_blobs()) == []
