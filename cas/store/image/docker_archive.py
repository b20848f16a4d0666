"""Docker archives: what ``docker save`` writes has no manifests, so they are made here.

The manifest is a function of the config and the layers alone: the same archive gives the same
digests on every device, and those that containerd's own import gives.
"""

__all__ = ["DockerArchive", "StoreFile"]

import json
from collections.abc import Callable

from cas.errors import DiffIDMismatchError, LayerError, MalformedArchiveError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import DiffID, Digest
from cas.model.documents import DockerArchiveEntry, parse_config, parse_docker_archive
from cas.model.limits import Limits
from cas.model.media_types import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    DOCKER_MANIFEST,
)
from cas.store.content.blob_batch import BlobBatch
from cas.store.image.archive_names import ArchiveImage, images_of_tags
from cas.store.image.archives.archive import (
    MANIFEST,
    Archive,
    ArchiveFile,
    claimed_digest,
    clean_name,
)
from cas.store.image.contents import ImportContents

StoreFile = Callable[[ArchiveFile, Digest | None, Cancellation], tuple[Digest, int]]
"""Puts a file of the archive into the store; digest and size."""

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_UNSUITABLE = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_HEAD_BYTES = 6


class DockerArchive:
    """Turns the entries of ``manifest.json`` into images.

    Args:
        archive: The archive.
        contents: Learns the generated manifests and the configs.
        limits: What documents may be.
    """

    def __init__(self, archive: Archive, contents: ImportContents, limits: Limits) -> None:
        self._archive = archive
        self._contents = contents
        self._limits = limits
        self._layers: dict[str, Descriptor] = {}

    def images(self, batch: BlobBatch, store: StoreFile) -> list[ArchiveImage]:
        """Store all layers and give the images with their names.

        Args:
            batch: Stores several layers at once.
            store: How to store one.

        Raises:
            MalformedArchiveError: A file that is named is not there, or the layers are not as
                many as the config says.
            MalformedDocumentError: ``manifest.json`` or a config is not valid.
            LayerError: A layer is compressed in a way that images do not have.
            DiffIDMismatchError: A plain layer is not the one that the config names.
            CasError: Whatever ``store`` raises.
        """
        raw = self._file(MANIFEST).read(self._limits.document_bytes)
        entries = parse_docker_archive(raw, self._limits)
        names = list(dict.fromkeys(name for entry in entries for name in entry.layers))

        def store_layer(name: str, cancel: Cancellation) -> None:
            file = self._file(name)
            media_type = self._layer_type(name, file)
            # Newer engines name members like the blobs of OCI layouts.
            digest, size = store(file, claimed_digest(clean_name(name)), cancel)
            self._layers[name] = Descriptor(media_type, digest, size)

        batch.run(names, store_layer)
        return [image for entry in entries for image in self._images(entry)]

    def _images(self, entry: DockerArchiveEntry) -> list[ArchiveImage]:
        config_raw = self._file(entry.config).read(self._limits.document_bytes)
        config = Descriptor(DOCKER_CONFIG, self._contents.add_document(config_raw), len(config_raw))
        layers = [self._layers[name] for name in entry.layers]
        self._check_layers(config_raw, config, layers)
        manifest_raw = _encode_manifest(config, layers)
        root = Descriptor(
            DOCKER_MANIFEST, self._contents.add_document(manifest_raw), len(manifest_raw)
        )
        return images_of_tags(root, entry.tags)

    def _check_layers(self, raw: bytes, config: Descriptor, layers: list[Descriptor]) -> None:
        diff_ids = parse_config(raw, config, self._limits).diff_ids
        if len(diff_ids) != len(layers):
            raise MalformedArchiveError(
                f"{self._archive.origin} names {len(layers)} layers for config {config.digest}, "
                f"which has {len(diff_ids)} diff IDs; they must be as many",
                layers=len(layers),
                diff_ids=len(diff_ids),
            )
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if layer.media_type == DOCKER_LAYER and layer.digest.hex != diff_id.hex:
                raise DiffIDMismatchError(
                    f"a layer of {self._archive.origin} has the diff ID "
                    f"{DiffID(layer.digest.hex)}, its config says {diff_id}",
                    expected=diff_id,
                    actual=layer.digest,
                )

    def _file(self, name: str) -> ArchiveFile:
        file = self._archive.find(clean_name(name))
        if file is None:
            raise MalformedArchiveError(
                f"{self._archive.origin} has no file {name[:200]!r}, which its manifest.json "
                "names; the archive is not complete",
                name=name[:200],
            )
        return file

    def _layer_type(self, name: str, file: ArchiveFile) -> str:
        head = file.head(_HEAD_BYTES)
        if head.startswith(_GZIP):
            return DOCKER_LAYER_GZIP
        if head.startswith(_ZSTD):
            return DOCKER_LAYER_ZSTD
        for magic, method in _UNSUITABLE.items():
            if head.startswith(magic):
                raise LayerError(
                    f"layer {name[:200]!r} of {self._archive.origin} is compressed with {method}; "
                    "only gzip and zstd can be unpacked",
                    name=name[:200],
                )
        return DOCKER_LAYER


def _encode_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """Serialise as containerd does, byte for byte."""
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": _form(config),
        "layers": [_form(layer) for layer in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _form(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
