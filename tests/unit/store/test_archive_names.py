"""Which names images of an archive get."""

import pytest

from cas.errors import InvalidNameError, MalformedArchiveError, UsageError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.media_types import OCI_MANIFEST
from cas.store.image.archive_names import (
    ArchiveImage,
    assign_names,
    image_of_entry,
    images_of_tags,
)

ONE = Descriptor(OCI_MANIFEST, Digest.of(b"one"), 3)
TWO = Descriptor(OCI_MANIFEST, Digest.of(b"two"), 3)
FULL = "io.containerd.image.name"
REF = "org.opencontainers.image.ref.name"


def entry(**annotations: str) -> Descriptor:
    """An entry of index.json."""
    return Descriptor(OCI_MANIFEST, ONE.digest, 3, annotations=annotations)


@pytest.mark.parametrize(
    ("annotations", "name", "tag"),
    [
        ({FULL: "any name", REF: "1.0"}, "any name", ""),
        ({REF: "1.0"}, "", "1.0"),
        ({REF: "ghcr.io/a/b:1.0"}, "ghcr.io/a/b:1.0", ""),
        ({REF: "busybox:1.36"}, "docker.io/library/busybox:1.36", ""),
        ({REF: "lfedge/eve"}, "docker.io/lfedge/eve:latest", ""),
        ({}, "", ""),
    ],
)
def test_image_of_entry_reads_annotations(annotations: dict[str, str], name: str, tag: str) -> None:
    """containerd's full name wins; OCI's is a reference or only a tag."""
    image = image_of_entry(entry(**annotations))
    assert (image.name, image.tag) == (name, tag)


@pytest.mark.parametrize("annotations", [{FULL: "a\nb"}, {REF: "a b"}, {REF: "a:b:c"}])
def test_image_of_entry_unusable_name_is_refused(annotations: dict[str, str]) -> None:
    """A name that no image can have is the archive's fault."""
    with pytest.raises(MalformedArchiveError):
        image_of_entry(entry(**annotations))


def test_images_of_tags_are_normalised() -> None:
    """docker's tags get their canonical form; none means nameless."""
    assert [image.name for image in images_of_tags(ONE, ["busybox:1", "ghcr.io/a:2"])] == [
        "docker.io/library/busybox:1",
        "ghcr.io/a:2",
    ]
    assert images_of_tags(ONE, []) == [ArchiveImage(ONE)]
    with pytest.raises(MalformedArchiveError):
        images_of_tags(ONE, ["no good"])


@pytest.mark.parametrize(
    ("images", "name", "expected"),
    [
        ([ArchiveImage(ONE, name="a:1")], None, [("a:1", ONE)]),
        ([ArchiveImage(ONE, name="a:1"), ArchiveImage(TWO, name="b:1")], None,
         [("a:1", ONE), ("b:1", TWO)]),
        ([ArchiveImage(ONE, name="a:1"), ArchiveImage(ONE, name="a:1")], None, [("a:1", ONE)]),
        ([ArchiveImage(ONE, name="a:1"), ArchiveImage(TWO)], None, [("a:1", ONE)]),
        ([ArchiveImage(ONE, name="a:1")], "b", [("b", ONE)]),
        ([ArchiveImage(ONE, name="a:1"), ArchiveImage(ONE, name="a:2")], "b:3", [("b:3", ONE)]),
        ([ArchiveImage(ONE, tag="1.0")], "reg/b", [("reg/b:1.0", ONE)]),
        ([ArchiveImage(ONE, tag="1"), ArchiveImage(ONE, tag="2")], "b",
         [("b:1", ONE), ("b:2", ONE)]),
        ([ArchiveImage(ONE, tag="1.0")], "b:2", [("b:2", ONE)]),
        ([ArchiveImage(ONE, tag="1.0")], "reg:5000/b", [("reg:5000/b:1.0", ONE)]),
        ([ArchiveImage(ONE, tag="1.0")], f"b@{ONE.digest}", [(f"b@{ONE.digest}", ONE)]),
        ([ArchiveImage(ONE)], "b", [("b", ONE)]),
    ],
)  # fmt: skip
def test_assign_names_gives_every_image_its_names(
    images: list[ArchiveImage], name: str | None, expected: list[tuple[str, Descriptor]]
) -> None:
    """The caller's name wins and takes the archive's tag; else the archive's names."""
    assert assign_names(images, name) == expected


@pytest.mark.parametrize("images", [[ArchiveImage(ONE)], [ArchiveImage(ONE, tag="1.0")]])
def test_assign_names_without_any_name_asks_for_one(images: list[ArchiveImage]) -> None:
    """Nobody is left with a nameless image; the error says how to name it."""
    with pytest.raises(UsageError, match="--name"):
        assign_names(images, None)


def test_assign_names_one_name_for_several_images_is_refused() -> None:
    """One name is not enough for two images."""
    with pytest.raises(UsageError, match="2 images"):
        assign_names([ArchiveImage(ONE, name="a"), ArchiveImage(TWO, name="b")], "c")


def test_assign_names_same_name_for_two_images_is_refused() -> None:
    """An archive that contradicts itself is refused."""
    with pytest.raises(MalformedArchiveError):
        assign_names([ArchiveImage(ONE, name="a"), ArchiveImage(TWO, name="a")], None)


def test_assign_names_without_images_is_refused() -> None:
    """An empty archive holds nothing to name."""
    with pytest.raises(MalformedArchiveError):
        assign_names([], "a")


def test_assign_names_unusable_name_is_refused() -> None:
    """The caller's name is checked as well."""
    with pytest.raises(InvalidNameError):
        assign_names([ArchiveImage(ONE)], " ")
