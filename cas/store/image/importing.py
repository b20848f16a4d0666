"""Image archives into the store; a use case of the store.

Invariants: everything happens under one lease; a document is committed with its labels after
everything it refers to; names appear when all content is there and durable, all of a call or none;
an interrupted import leaves nothing but blobs that the next one finds or the collector takes.
"""

__all__ = ["ImageImport"]

from collections.abc import Sequence
from pathlib import Path

from cas.errors import MalformedArchiveError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.documents import parse_layout_index, parse_layout_version
from cas.model.labels import NOT_FETCHED
from cas.model.media_types import OCI_INDEX, is_manifest
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import ImageRecord
from cas.store.backing import Backing
from cas.store.content.blob_batch import BlobBatch
from cas.store.content.ingest import Ingest
from cas.store.content.sources import Reader, Source
from cas.store.image.archive_names import ArchiveImage, assign_names, image_of_entry
from cas.store.image.archives.archive import INDEX, LAYOUT, MANIFEST, Archive, ArchiveFile
from cas.store.image.archives.opening import open_archive
from cas.store.image.contents import ImportContents
from cas.store.image.docker_archive import DockerArchive
from cas.store.image.document_walk import ImageGraph, PlannedBlob
from cas.store.image.names import ImageNames
from cas.store.leasing import Lease, Leasing


class ImageImport:
    """Imports archives, and links images whose blobs came in one by one.

    Args:
        backing: The store.
        leasing: Makes its leases.
        ingest: Takes blobs in.
        names: Records names.
        workers: Blobs worked on at once.
    """

    def __init__(
        self,
        backing: Backing,
        *,
        leasing: Leasing,
        ingest: Ingest,
        names: ImageNames,
        workers: int,
    ) -> None:
        self._backing = backing
        self._leasing = leasing
        self._ingest = ingest
        self._names = names
        self._workers = workers

    def import_archive(
        self,
        source: Path | Reader,
        *,
        name: str | None,
        platform: Platform,
        demanded: bool,
        origin: str,
        beneath: Path | None,
        cancel: Cancellation | None,
        progress: Progress = NO_PROGRESS,
    ) -> list[ImageRecord]:
        """See :meth:`cas.store.image.images.Images.import_archive`.

        Args:
            source: Path, or something to read from.
            name: Overrides the archive's.
            platform: The platform that must not be there in part only.
            demanded: Whether the caller asked for it.
            origin: What messages call a stream.
            beneath: A directory that a path must lie below.
            cancel: Stops the work.
            progress: Told of every chunk.
        """
        with self._leasing.hold("import") as lease:
            run = _ImportRun(self._backing, self._ingest, lease, self._workers, cancel, progress)
            with run.open(source, origin, beneath) as archive:
                contents = ImportContents(self._backing, lease, archive)
                named = assign_names(run.images(archive, contents), name)
                graph = ImageGraph(contents, self._backing.limits, platform, demanded=demanded)
                for root in dict.fromkeys(root for _, root in named):
                    run.store(graph.plan(root), contents)
            self._ingest.settle()
            if cancel is not None:
                cancel.check()
            return self._names.put_all(named, lease)

    def link(self, root: Descriptor, lease: Lease, platform: Platform) -> None:
        """See to it that the labels of an image's blobs keep the whole image.

        For images whose blobs were ingested one by one. Idempotent.

        Raises:
            ContentMissingError: The root, or too much below it, is not in the store.
            MalformedDocumentError: A document is not valid.
        """
        contents = ImportContents(self._backing, lease)
        run = _ImportRun(self._backing, self._ingest, lease, self._workers, None, NO_PROGRESS)
        run.store(ImageGraph(contents, self._backing.limits, platform).plan(root), contents)
        self._ingest.settle()


class _ImportRun:
    """One call: its lease, its flag, its watcher."""

    def __init__(
        self,
        backing: Backing,
        ingest: Ingest,
        lease: Lease,
        workers: int,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> None:
        self._backing = backing
        self._ingest = ingest
        self._lease = lease
        self._cancel = cancel
        self._progress = progress
        self._batch = BlobBatch(workers, cancel)

    def open(self, source: Path | Reader, origin: str, beneath: Path | None) -> Archive:
        """Open the archive; what can be read only once comes in now."""
        return open_archive(
            source,
            self._backing.limits,
            receive=self._receive,
            content=self._backing.content,
            origin=origin,
            beneath=beneath,
        )

    def images(self, archive: Archive, contents: ImportContents) -> list[ArchiveImage]:
        """Find the images; layers of a docker archive come in now."""
        limits = self._backing.limits
        layout = archive.find(LAYOUT)
        if layout is not None:
            parse_layout_version(layout.read(limits.document_bytes), limits)
            return self._layout_images(archive, contents)
        if archive.find(MANIFEST) is not None:
            return DockerArchive(archive, contents, limits).images(self._batch, self._store_file)
        raise MalformedArchiveError(
            f"{archive.origin} has neither oci-layout nor manifest.json: it is no archive of an "
            "image, or not complete",
            origin=archive.origin,
        )

    def _layout_images(self, archive: Archive, contents: ImportContents) -> list[ArchiveImage]:
        file = archive.find(INDEX)
        if file is None:
            raise MalformedArchiveError(
                f"{archive.origin} has oci-layout but no index.json; it is not complete",
                origin=archive.origin,
            )
        limits = self._backing.limits
        raw = file.read(limits.document_bytes)
        images = [image_of_entry(entry) for entry in parse_layout_index(raw, limits).manifests]
        if _is_one_image(images):
            root = Descriptor(OCI_INDEX, contents.add_document(raw), len(raw))
            return [ArchiveImage(root)]
        return images

    def store(self, blobs: Sequence[PlannedBlob], contents: ImportContents) -> None:
        """Bring a planned image in, children before parents."""

        def step(blob: PlannedBlob, cancel: Cancellation) -> None:
            self._take(
                contents.source(blob.descriptor),
                expected=blob.descriptor.digest,
                size=blob.descriptor.size,
                labels=blob.labels,
                cancel=cancel,
            )
            if blob.is_document:
                self._settle_labels(blob)

        self._batch.by_level(blobs, step)

    def _receive(self, source: Source, claimed: Digest | None, size: int) -> Digest:
        return self._take(source, expected=claimed, size=size, cancel=self._cancel)[0]

    def _store_file(
        self, file: ArchiveFile, claimed: Digest | None, cancel: Cancellation
    ) -> tuple[Digest, int]:
        if file.digest is not None:
            return file.digest, file.size
        return self._take(file.source(), expected=claimed, size=file.size, cancel=cancel)

    def _take(
        self,
        source: Source,
        *,
        expected: Digest | None,
        size: int,
        cancel: Cancellation | None,
        labels: dict[str, str] | None = None,
    ) -> tuple[Digest, int]:
        taken = self._ingest.ingest(
            source,
            self._lease,
            expected=expected,
            size=size,
            labels=labels,
            cancel=cancel,
            progress=self._progress,
        )
        return taken.digest, taken.size

    def _settle_labels(self, blob: PlannedBlob) -> None:
        """Correct what an earlier import, or another tool, left on a document that existed.

        Their numbering of children may differ; an entry that was not fetched then may be now.
        """
        found = self._backing.content.info(blob.descriptor.digest).labels
        changes: dict[str, str | None] = {
            key: value for key, value in blob.labels.items() if found.get(key) != value
        }
        changes |= {
            key: None
            for key in found
            if key.startswith(f"{NOT_FETCHED}.") and key not in blob.labels
        }
        if changes:
            self._backing.content.update_labels(blob.descriptor.digest, changes)


def _is_one_image(images: Sequence[ArchiveImage]) -> bool:
    """Whether ``index.json`` itself is the index of one image: nameless, one per platform."""
    platforms = {image.root.platform for image in images}
    return (
        len(images) > 1
        and len(platforms) == len(images)
        and None not in platforms
        and all(is_manifest(image.root.media_type) and not image.name for image in images)
    )
