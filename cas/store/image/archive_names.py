"""Which names the images of an archive get; pure rules."""

__all__ = ["ArchiveImage", "assign_names", "image_of_entry", "images_of_tags"]

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cas.errors import InvalidNameError, MalformedArchiveError, UsageError
from cas.model.descriptor import Descriptor
from cas.model.reference import check_image_name, is_tag, normalise_docker_name

_log = logging.getLogger(__name__)

_FULL_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class ArchiveImage:
    """An image of an archive with what the archive calls it.

    Args:
        root: The manifest or index.
        name: Full reference, or empty.
        tag: Only a tag, or empty; not beside a full reference.
    """

    root: Descriptor
    name: str = ""
    tag: str = ""


def image_of_entry(entry: Descriptor) -> ArchiveImage:
    """Read the annotations of an entry of ``index.json``.

    containerd's annotation holds the full name. OCI's may hold one as well, docker's short form
    included, but mostly holds a tag.

    Raises:
        MalformedArchiveError: A name that no image can have.
    """
    full = entry.annotations.get(_FULL_NAME, "")
    ref = entry.annotations.get(_REF_NAME, "")
    if full:
        return ArchiveImage(entry, name=_checked(check_image_name, full))
    if ref and not is_tag(ref):
        return ArchiveImage(entry, name=_checked(normalise_docker_name, ref))
    return ArchiveImage(entry, tag=ref)


def images_of_tags(root: Descriptor, tags: Sequence[str]) -> list[ArchiveImage]:
    """Read the tags of an entry of a docker archive; an image without tag is nameless.

    Raises:
        MalformedArchiveError: A tag that is no reference.
    """
    names = [_checked(normalise_docker_name, tag) for tag in tags]
    return [ArchiveImage(root, name=name) for name in names] or [ArchiveImage(root)]


def _checked(check: Callable[[str], str], name: str) -> str:
    try:
        return check(name)
    except InvalidNameError as error:
        raise MalformedArchiveError(
            f"the archive gives an image an unusable name: {error.message}", name=name[:200]
        ) from error


def assign_names(images: Sequence[ArchiveImage], name: str | None) -> list[tuple[str, Descriptor]]:
    """Give each image the name or names it is to be known by.

    Args:
        images: Of one archive; an image may occur several times with different names.
        name: What the caller wants instead. A name without tag takes the tag, or tags, of an
            archive that has nothing but tags.

    Returns:
        Pairs of name and root, each name once.

    Raises:
        UsageError: ``name`` was given and the archive has several images, or neither the caller
            nor the archive names an image.
        InvalidNameError: ``name`` can be no image's.
        MalformedArchiveError: The archive gives two images one name, or has no image.
    """
    if not images:
        raise MalformedArchiveError("the archive holds no image")
    if name is not None:
        return _named_by_caller(images, check_image_name(name))
    named = [image for image in images if image.name]
    if not named:
        tags = ", ".join(sorted({repr(image.tag) for image in images if image.tag}))
        says = f"only the tag {tags}" if tags else "no name"
        raise UsageError(
            f"the archive gives image {images[0].root.digest} {says}; say what to call it with "
            "--name",
            digest=images[0].root.digest,
        )
    for image in images:
        if not image.name:
            _log.warning("image without name left out digest=%s", image.root.digest)
    return _distinct([(image.name, image.root) for image in named])


def _named_by_caller(images: Sequence[ArchiveImage], name: str) -> list[tuple[str, Descriptor]]:
    digests = {image.root.digest for image in images}
    if len(digests) > 1:
        raise UsageError(
            f"the archive holds {len(digests)} images, so one name is not enough; import it "
            "without --name",
            images=len(digests),
        )
    tags = {image.tag: image.root for image in images if image.tag and not image.name}
    if tags and not _has_tag(name):
        return [(f"{name}:{tag}", root) for tag, root in tags.items()]
    return [(name, images[0].root)]


def _has_tag(name: str) -> bool:
    last = name.rpartition("/")[2]
    return ":" in last or "@" in last


def _distinct(pairs: list[tuple[str, Descriptor]]) -> list[tuple[str, Descriptor]]:
    result: dict[str, Descriptor] = {}
    for name, root in pairs:
        if result.setdefault(name, root).digest != root.digest:
            raise MalformedArchiveError(
                f"the archive gives the name {name!r} to {result[name].digest} and to "
                f"{root.digest}",
                name=name,
            )
    return list(result.items())
