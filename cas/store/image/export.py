"""Images out of the store, as archives that other tools read; a use case of the store.

Reads under a lease, so that nothing can be collected half way. Invariants: every blob is hashed
while it is copied; the same image gives the same bytes; memory does not grow with the image.
"""

__all__ = ["ArchiveFormat", "ImageExport"]

import hashlib
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum

from backports import zstd

from cas.errors import (
    ContentMissingError,
    CorruptBlobError,
    DiffIDMismatchError,
    InvalidNameError,
    LayerError,
    MalformedArchiveError,
    MalformedDocumentError,
    PlatformNotFoundError,
)
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import DiffID, Digest
from cas.model.limits import CHUNK_BYTES
from cas.model.media_types import OCI_INDEX
from cas.model.progress import Progress
from cas.model.records import ImageRecord
from cas.model.reference import ImageReference
from cas.store.backing import Backing
from cas.store.content.sources import ChunkSource
from cas.store.image.archives.archive import INDEX, LAYOUT, MANIFEST, blob_name
from cas.store.image.archives.decompression import Decompressed
from cas.store.image.archives.tar_writer import TarWriter, Writable
from cas.store.image.contents import StoreContents
from cas.store.image.document_walk import ImageGraph
from cas.store.image.resolution import ImageResolution, Layer, ResolvedImage, missing_layer
from cas.store.leasing import Lease, Leasing

_ACTION = "export"
_NOT_FOR_DOCKER = (ContentMissingError, PlatformNotFoundError, MalformedDocumentError, LayerError)
_ZSTD = b"\x28\xb5\x2f\xfd"


class ArchiveFormat(StrEnum):
    """What an export is to be read by."""

    OCI = "oci"
    """All digests as they are; every tool of today, and docker's engine through manifest.json."""
    DOCKER = "docker"
    """One platform, no zstd: engines that know neither OCI layouts nor zstd."""


class ImageExport:
    """Exports images of one store.

    Args:
        backing: The store.
        leasing: Makes its leases.
    """

    def __init__(self, backing: Backing, leasing: Leasing) -> None:
        self._backing = backing
        self._leasing = leasing

    def export(
        self,
        record: ImageRecord,
        out: Writable,
        *,
        archive_format: ArchiveFormat,
        platform: Platform,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        """Write the image; see :meth:`cas.store.image.images.Images.export`."""
        with self._leasing.hold("export") as lease:
            lease.pin_blob(record.target.digest)
            run = _ExportRun(self._backing, lease, out, cancel, progress)
            if archive_format is ArchiveFormat.OCI:
                run.write_oci(record, platform)
            else:
                run.write_docker(record, platform)


class _ExportRun:
    """One call: its lease, its output, its flag, its watcher."""

    def __init__(
        self,
        backing: Backing,
        lease: Lease,
        out: Writable,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        self._backing = backing
        self._lease = lease
        self._tar = TarWriter(out)
        self._cancel = cancel
        self._progress = progress
        self._resolution = ImageResolution(backing.content, backing.limits)

    def write_oci(self, record: ImageRecord, platform: Platform) -> None:
        contents = StoreContents(self._backing, self._lease)
        blobs = ImageGraph(contents, self._backing.limits, platform).plan(record.target)
        planned = {blob.descriptor.digest: blob.descriptor for blob in blobs}
        docker = self._docker_manifest(record, platform, frozenset(planned))
        self._tar.add_bytes(LAYOUT, _encode({"imageLayoutVersion": "1.0.0"}))
        self._tar.add_directory("blobs")
        self._tar.add_directory("blobs/sha256")
        # One blob may have two types in one image, and is one file all the same.
        for blob in planned.values():
            self._tar.add_chunks(blob_name(blob.digest), blob.size, self._blob(blob))
        self._tar.add_bytes(INDEX, _encode(_layout_index(record)))
        if docker is not None:
            self._tar.add_bytes(MANIFEST, docker)
        self._tar.finish()

    def write_docker(self, record: ImageRecord, platform: Platform) -> None:
        resolved = self._resolution.resolve(record, platform)
        contents = StoreContents(self._backing, self._lease)
        for layer in resolved.layers:
            if not contents.has(layer.descriptor):
                raise missing_layer(layer.descriptor)
        self._tar.add_bytes(_docker_config(resolved), resolved.config_raw)
        for layer in {layer.diff_id: layer for layer in resolved.layers}.values():
            self._write_docker_layer(layer)
        self._tar.add_bytes(
            MANIFEST,
            _archive_manifest(
                record, _docker_config(resolved), map(_docker_layer, resolved.layers)
            ),
        )
        self._tar.finish()

    def _write_docker_layer(self, layer: Layer) -> None:
        name, blob = _docker_layer(layer), layer.descriptor
        if not self._is_zstd(blob):
            self._tar.add_chunks(name, blob.size, self._blob(blob))
            return
        # The size stands before the content in a tar, so it is decompressed twice.
        size = sum(map(len, self._plain(layer)))
        self._tar.add_chunks(name, size, self._plain(layer))

    def _docker_manifest(
        self, record: ImageRecord, platform: Platform, exported: frozenset[Digest]
    ) -> bytes | None:
        """What makes ``docker load`` read an OCI layout; None if the image is not for it."""
        try:
            resolved = self._resolution.resolve(record, platform)
        except _NOT_FOR_DOCKER:
            return None
        if not exported.issuperset(layer.descriptor.digest for layer in resolved.layers):
            return None
        return _archive_manifest(
            record,
            blob_name(resolved.config_descriptor.digest),
            (blob_name(layer.descriptor.digest) for layer in resolved.layers),
        )

    def _blob(self, blob: Descriptor) -> Iterator[bytes]:
        """Stream a blob; ends in an error if the bytes were not those of the digest."""
        running = hashlib.sha256()
        self._progress.start(_ACTION, str(blob.digest), blob.size)
        try:
            for chunk in self._backing.content.read(blob.digest):
                self._check()
                running.update(chunk)
                yield chunk
                self._progress.advance(_ACTION, str(blob.digest), len(chunk))
        finally:
            self._progress.finish(_ACTION, str(blob.digest))
        actual = Digest(running.hexdigest())
        if actual != blob.digest:
            raise CorruptBlobError(
                f"stored blob {blob.digest} hashes to {actual}; run 'cas check --fix'",
                digest=blob.digest,
                actual=actual,
            )

    def _is_zstd(self, blob: Descriptor) -> bool:
        if blob.size < len(_ZSTD):
            return False
        head = b"".join(self._backing.content.read(blob.digest, offset=0, size=len(_ZSTD)))
        return head == _ZSTD

    def _plain(self, layer: Layer) -> Iterator[bytes]:
        """Stream what a zstd layer holds; ends in an error if it is not what the config says."""
        running = hashlib.sha256()
        what = f"layer {layer.descriptor.digest}"
        source = ChunkSource(lambda: self._blob(layer.descriptor), what)
        try:
            with source.open() as reader:
                plain = Decompressed(reader, zstd.ZstdDecompressor, what, self._backing.limits)
                while chunk := plain.read(CHUNK_BYTES):
                    running.update(chunk)
                    yield chunk
        except MalformedArchiveError as error:
            raise LayerError(error.message, digest=layer.descriptor.digest) from error
        actual = DiffID(running.hexdigest())
        if actual != layer.diff_id:
            raise DiffIDMismatchError(
                f"{what} has the diff ID {actual}, its image's config says {layer.diff_id}",
                expected=layer.diff_id,
                actual=actual,
            )

    def _check(self) -> None:
        self._lease.keep_alive()
        if self._cancel is not None:
            self._cancel.check()


def _layout_index(record: ImageRecord) -> dict[str, object]:
    annotations = {"io.containerd.image.name": record.name}
    if tag := _tag(record.name):
        annotations["org.opencontainers.image.ref.name"] = tag
    root: dict[str, object] = {
        "mediaType": record.target.media_type,
        "digest": str(record.target.digest),
        "size": record.target.size,
        "annotations": annotations,
    }
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [root]}


def _tag(name: str) -> str:
    try:
        return ImageReference.parse(name).tag
    except InvalidNameError:
        return ""


def _repository_tags(name: str) -> list[str]:
    """What ``docker load`` will call the image; nothing if it cannot have that name."""
    try:
        reference = ImageReference.parse(name)
    except InvalidNameError:
        return []
    if not reference.tag:
        return []
    return [f"{reference.domain}/{reference.path}:{reference.tag}"]


def _docker_config(resolved: ResolvedImage) -> str:
    return f"{resolved.config_descriptor.digest.hex}.json"


def _docker_layer(layer: Layer) -> str:
    return f"{layer.diff_id.hex}/layer.tar"


def _archive_manifest(record: ImageRecord, config: str, layers: Iterable[str]) -> bytes:
    tags = _repository_tags(record.name)
    return _encode([{"Config": config, "RepoTags": tags, "Layers": list(layers)}])


def _encode(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
