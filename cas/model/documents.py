"""Manifests, indexes and image configs: strict parsing of bytes from outside.

A document keeps its raw bytes, since its digest is of those and never of a re-serialisation.
Nothing is looked up here; whether a blob exists is not this module's question.
"""

__all__ = [
    "Child",
    "DockerArchiveEntry",
    "Document",
    "ImageConfig",
    "Index",
    "Manifest",
    "children",
    "parse_config",
    "parse_docker_archive",
    "parse_document",
    "parse_layout_index",
    "parse_layout_version",
]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from cas.errors import InvalidNameError, LimitExceededError, MalformedDocumentError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import DiffID, Digest
from cas.model.document_forms import (
    ArchiveEntryForm,
    ConfigForm,
    DescriptorForm,
    IndexForm,
    LayoutForm,
    ManifestForm,
    decode,
)
from cas.model.labels import GC_REF_CONTENT
from cas.model.limits import Limits
from cas.model.media_types import OCI_INDEX, is_config, is_index, is_layer, is_manifest
from cas.model.platforms import normalise

_LAYOUT_VERSION = "1.0.0"
_MEDIA_TYPE_CHARACTERS = 255
"""Two names of 127 and a slash, as RFC 6838 has it."""
_SCHEMA_VERSIONS = (2, 0)  # EVE's generated manifests say 0

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of one image or artifact.

    Args:
        raw: The bytes that were parsed.
        config: What its config blob is.
        layers: All layers in order, bottom first, of whatever media type.
        annotations: As in the document.
        artifact_type: Empty for an image.
    """

    raw: bytes
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    artifact_type: str


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, usually one per platform; it may hold further indexes.

    Args:
        raw: The bytes that were parsed.
        manifests: The entries in order.
        annotations: As in the document.
    """

    raw: bytes
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]


Document = Manifest | Index


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What the store needs of an image config; the rest stays in the raw bytes.

    Args:
        platform: None if the config names none, as in configs of artifacts.
        diff_ids: Of the layers, bottom first.
        labels: Labels of the image's execution config.
    """

    platform: Platform | None
    diff_ids: tuple[DiffID, ...]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DockerArchiveEntry:
    """One image of a docker archive: names of members and of the image."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Child:
    """A blob that a document refers to, and the label that tells the collector so."""

    descriptor: Descriptor
    label: str


_FORBIDDEN = {
    ManifestForm: ("manifests", "fsLayers"),
    IndexForm: ("config", "layers", "fsLayers"),
}
_KNOWN_KEYS = ("config", "layers", "manifests", "mediaType", "schemaVersion")


def parse_document(raw: bytes, descriptor: Descriptor, limits: Limits) -> Document:
    """Parse a manifest or an index, whichever the descriptor says it is.

    A document that could be read as both is refused, whatever the descriptor says.

    Raises:
        MalformedDocumentError: Not JSON, wrong types, a wrong or unknown media type, a key that
            the other kind of document has, or a version other than schema 2.
        LimitExceededError: The document, its list or a blob it names is larger than allowed.

    Source: OCI image specification, image manifest and image index; CVE-2021-41190.
    """
    what = f"{descriptor.digest} ({descriptor.media_type})"
    if is_manifest(descriptor.media_type):
        form = decode(raw, ManifestForm, what, limits)
        _check_kind(raw, form, descriptor.media_type, what)
        layers = _descriptors(form.layers, what, limits.descriptors, limits)
        _check_count(
            "layers", sum(is_layer(each.media_type) for each in layers), limits.layers, what
        )
        return Manifest(
            raw,
            _with_plain_type(_descriptor(form.config, what, limits), what),
            tuple(_with_plain_type(each, what) for each in layers),
            form.annotations or {},
            form.artifact_type or "",
        )
    if is_index(descriptor.media_type):
        return _parse_index(raw, descriptor.media_type, what, limits)
    raise MalformedDocumentError(
        f"{descriptor.digest} has the media type {descriptor.media_type!r}, which is neither an "
        "image manifest nor an image index of OCI or docker schema 2",
        digest=descriptor.digest,
        media_type=descriptor.media_type,
    )


def parse_layout_index(raw: bytes, limits: Limits) -> Index:
    """Parse the ``index.json`` of an OCI layout; raises as :func:`parse_document`."""
    return _parse_index(raw, OCI_INDEX, "index.json", limits)


def _parse_index(raw: bytes, media_type: str, what: str, limits: Limits) -> Index:
    form = decode(raw, IndexForm, what, limits)
    _check_kind(raw, form, media_type, what)
    entries = _descriptors(form.manifests, what, limits.descriptors, limits)
    return Index(raw, entries, form.annotations or {})


def parse_config(raw: bytes, descriptor: Descriptor, limits: Limits) -> ImageConfig:
    """Parse an image config.

    Raises:
        MalformedDocumentError: Not JSON, wrong types, or a media type that is no image config's.
        LimitExceededError: The config is larger than allowed or names too many layers.

    Source: OCI image specification, image configuration.
    """
    what = f"config {descriptor.digest}"
    if not is_config(descriptor.media_type):
        raise MalformedDocumentError(
            f"{what} has the media type {descriptor.media_type!r}: this is an artifact, not a "
            "container image",
            digest=descriptor.digest,
            media_type=descriptor.media_type,
        )
    form = decode(raw, ConfigForm, what, limits)
    diff_ids = (form.rootfs.diff_ids if form.rootfs else None) or []
    _check_count("diff IDs", len(diff_ids), limits.descriptors, what)
    platform = None
    if form.os and form.architecture:
        platform = normalise(form.os, form.architecture, form.variant or "")
    return ImageConfig(
        platform,
        tuple(_parsed(DiffID.parse, text, what) for text in diff_ids),
        (form.config.Labels if form.config else None) or {},
    )


def parse_layout_version(raw: bytes, limits: Limits) -> None:
    """Return if ``oci-layout`` names the one version there is.

    Raises:
        MalformedDocumentError: It does not, or is no such document.
        LimitExceededError: The file is larger than allowed.
    """
    version = decode(raw, LayoutForm, "oci-layout", limits).image_layout_version
    if version != _LAYOUT_VERSION:
        raise MalformedDocumentError(
            f"oci-layout has version {version[:100]!r}; {_LAYOUT_VERSION} is needed",
            expected=_LAYOUT_VERSION,
            actual=version[:100],
        )


def parse_docker_archive(raw: bytes, limits: Limits) -> list[DockerArchiveEntry]:
    """Parse the ``manifest.json`` of a docker archive.

    Raises:
        MalformedDocumentError: Not JSON, or not a list of images.
        LimitExceededError: The file is larger than allowed or names too many images or layers.
    """
    what = "manifest.json"
    entries = decode(raw, list[ArchiveEntryForm], what, limits)
    _check_count("images", len(entries), limits.descriptors, what)
    for entry in entries:
        _check_count("layers", len(entry.layers or ()), limits.layers, what)
    return [
        DockerArchiveEntry(entry.config, tuple(entry.repo_tags or ()), tuple(entry.layers or ()))
        for entry in entries
    ]


def children(document: Document) -> list[Child]:
    """List what the document refers to with containerd's label for each, config first.

    The list keeps repetitions: every entry counts and has a label of its own.

    Source: containerd's ``images.ChildGCLabels``; a counter per kind of label.
    """
    if isinstance(document, Index):
        listed = list(document.manifests)
    else:
        listed = [document.config, *document.layers]
    counters: dict[str, int] = {}
    result = []
    for descriptor in listed:
        key = _label_key(descriptor.media_type)
        number = counters.get(key, 0)
        counters[key] = number + 1
        suffix = str(number) if key.endswith(".") or number else ""
        result.append(Child(descriptor, key + suffix))
    return result


def _label_key(media_type: str) -> str:
    if is_config(media_type):
        return f"{GC_REF_CONTENT}.config"
    if is_manifest(media_type):
        return f"{GC_REF_CONTENT}.m."
    if is_layer(media_type):
        return f"{GC_REF_CONTENT}.l."
    return f"{GC_REF_CONTENT}."


def _check_kind(raw: bytes, form: ManifestForm | IndexForm, media_type: str, what: str) -> None:
    keys = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    for key in _FORBIDDEN[type(form)]:
        if key in keys:
            raise MalformedDocumentError(
                f"{what} has a key {key!r}, which belongs to another kind of document", key=key
            )
    for key in keys:
        # Go's decoder, which other readers of the same bytes use, ignores case.
        if key not in _KNOWN_KEYS and key.lower() in map(str.lower, _KNOWN_KEYS):
            raise MalformedDocumentError(
                f"{what} has a key {key[:40]!r} that readers understand differently", key=key[:40]
            )
    if form.media_type and form.media_type != media_type:
        raise MalformedDocumentError(
            f"{what} says of itself that it is {form.media_type[:200]!r}",
            expected=media_type,
            actual=form.media_type[:200],
        )
    if form.schema_version not in _SCHEMA_VERSIONS:
        raise MalformedDocumentError(
            f"{what} has schema version {form.schema_version}; only version 2 is understood",
            actual=form.schema_version,
        )


def _descriptors(
    forms: list[DescriptorForm] | None, what: str, most: int, limits: Limits
) -> tuple[Descriptor, ...]:
    _check_count("entries", len(forms or ()), most, what)
    return tuple(_descriptor(form, what, limits) for form in forms or ())


def _descriptor(form: DescriptorForm, what: str, limits: Limits) -> Descriptor:
    digest = _parsed(Digest.parse, form.digest, what)
    if form.size > limits.blob_bytes:
        raise LimitExceededError(
            f"{what} names a blob {digest} of {form.size} bytes, more than the "
            f"{limits.blob_bytes} that a blob may have",
            limit=limits.blob_bytes,
            actual=form.size,
        )
    platform = None
    if form.platform is not None and (form.platform.os or form.platform.architecture):
        platform = normalise(
            form.platform.os, form.platform.architecture, form.platform.variant or ""
        )
    return Descriptor(
        form.media_type,
        digest,
        form.size,
        platform,
        form.annotations or {},
        tuple(form.urls or ()),
        form.artifact_type or "",
    )


def _with_plain_type(descriptor: Descriptor, what: str) -> Descriptor:
    """Refuse a media type that no blob can carry; entries of an index are taken by kind anyway."""
    media_type = descriptor.media_type
    plain = media_type.isascii() and media_type.isprintable()
    if len(media_type) > _MEDIA_TYPE_CHARACTERS or not plain:
        raise MalformedDocumentError(
            f"{what} names a blob {descriptor.digest} of the media type {media_type[:100]!r}, "
            f"which is not up to {_MEDIA_TYPE_CHARACTERS} printable characters of ASCII",
            digest=descriptor.digest,
            media_type=media_type[:100],
        )
    return descriptor


def _parsed(parse: Callable[[str], _Value], text: str, what: str) -> _Value:
    try:
        return parse(text)
    except InvalidNameError as error:
        raise MalformedDocumentError(f"{what}: {error.message}") from error


def _check_count(things: str, count: int, most: int, what: str) -> None:
    if count > most:
        raise LimitExceededError(
            f"{what} has {count} {things}, more than the {most} allowed", limit=most, actual=count
        )
