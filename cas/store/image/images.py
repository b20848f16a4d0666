"""Images: import, export, names, details; use cases of the store.

An image is a name that points to a manifest or an index. Invariants: a name appears only when
everything it needs is in the store and durable; what it needs lives as long as it does; no call
leaves a half-done name. Turning images into mounted trees is not done here, see
:mod:`cas.store.layers.unpack`.
"""

__all__ = [
    "ArchiveFormat",
    "BlobToLoad",
    "ImageDetails",
    "Images",
    "Layer",
    "PlatformDetails",
    "ResolvedImage",
]

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from cas.errors import UsageError
from cas.model.cancellation import Cancellation, check_operation
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.disk.wrapping import wrap_disk
from cas.model.media_types import OCI_CONFIG
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import ImageRecord
from cas.model.reference import check_image_name
from cas.store.backing import Backing
from cas.store.content.ingest import Ingest
from cas.store.content.sources import Reader
from cas.store.image.archives.tar_writer import Writable
from cas.store.image.catalogue import ImageCatalogue
from cas.store.image.details import ImageDetails, ImageInspection, PlatformDetails
from cas.store.image.disks import bare_disk
from cas.store.image.export import ArchiveFormat, ImageExport
from cas.store.image.importing import ImageImport
from cas.store.image.loading import BlobToLoad, ImageLoading
from cas.store.image.output import image_output
from cas.store.image.resolution import Layer, ResolvedImage
from cas.store.leasing import Lease


class Images(ImageCatalogue):
    """The images of one store, their archives and their details; may be shared by threads.

    Args:
        backing: The store.
        workers: Blobs worked on at once.
        platform: What this machine runs; None asks the kernel.
    """

    def __init__(
        self, backing: Backing, *, workers: int = 4, platform: Platform | None = None
    ) -> None:
        super().__init__(backing, platform=platform)
        ingest = Ingest(backing)
        self._import = ImageImport(
            backing, leasing=self._leasing, ingest=ingest, names=self._names, workers=workers
        )
        self._loading = ImageLoading(
            backing,
            leasing=self._leasing,
            ingest=ingest,
            names=self._names,
            link=self._import.link,
            workers=workers,
        )

    def import_archive(
        self,
        source: Path | Reader,
        *,
        name: str | None = None,
        platform: Platform | None = None,
        origin: str = "the input stream",
        beneath: Path | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> list[ImageRecord]:
        """Bring in all images of an archive and record their names, which move if they exist.

        Takes an OCI layout (directory or tar) or a docker archive, compressed or not. A directory
        or a plain tar on disk is read where it lies, and blobs that the store has are not read at
        all; anything else is read once, from start to end. Every blob is verified.

        On return content and names are durable. After a failure no name has changed; blobs that
        were complete stay until the next collection, so that a repetition goes on from there.
        Idempotent. Blocks.

        Args:
            source: A path, or an open stream such as standard input.
            name: Name of the one image of the archive, in place of what the archive says. A name
                without tag gets the tag that the archive has.
            platform: Platform whose manifest must be there and complete if the index lists it;
                None: this machine's, which may be absent altogether but not in part. Everything
                else that is complete comes in as well.
            origin: What messages call a stream.
            beneath: A directory that a path must lie below; no symbolic link is followed then.
            cancel: Stops the work between two chunks.
            progress: Told of every chunk.

        Returns:
            One record per name.

        Raises:
            UsageError: Nobody names the image, or one name was given for several.
            SourceNotFoundError: Nothing is at the path.
            DeniedError: It may not be read, or is not below ``beneath``.
            MalformedArchiveError: It is no archive of an image, or truncated, or damaged.
            MalformedDocumentError: A manifest, index or config is not valid.
            ContentMissingError: The archive lacks a blob that the store has not got either.
            DigestMismatchError: A blob has other content than its name says.
            SizeMismatchError: A blob has another size than its descriptor says.
            DiffIDMismatchError: A layer of a docker archive is not the one its config names.
            LayerError: A layer is compressed in a way that images do not have.
            LimitExceededError: Something is larger, deeper or more than allowed.
            NoSpaceError: There is too little room.
            InterruptedOperationError: ``cancel`` was set.
        """
        return self._import.import_archive(
            source,
            name=None if name is None else check_image_name(name),
            platform=platform or self._platform,
            demanded=platform is not None,
            origin=origin,
            beneath=beneath,
            cancel=cancel,
            progress=progress,
        )

    def load(
        self,
        reference: str,
        target: Descriptor,
        blobs: Iterable[BlobToLoad],
        *,
        labels: Mapping[str, str] | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> ImageRecord:
        """Store the blobs of one image and point a name to it, which moves if it exists.

        One operation under one lease: what of it was stored before is found, and until the name
        is there nothing of it can be collected. After a failure the name is as it was; blobs that
        were complete stay until the next collection, those whose files were moved are kept for the
        next attempt. Idempotent.

        Args:
            reference: The name.
            target: The manifest or index that it is to point to; a size of 0 stands for whatever
                the blob has.
            blobs: Those that may have to be stored, in any order.
            labels: What a new name is made with, in one step; an existing one keeps its own.
            cancel: Stops the work between two chunks.
            progress: Told of every chunk.

        Raises:
            InvalidNameError: No image can have the name.
            ContentMissingError: A blob of the image is neither given nor in the store.
            SourceNotFoundError: A file does not exist, and its blob is not in the store.
            DeniedError: A file is not where it must be.
            MalformedDocumentError: A document is not valid.
            DigestMismatchError: A blob has other content than it should.
            SizeMismatchError: A blob has another size than it should.
            NoSpaceError: There is too little room.
            InterruptedOperationError: ``cancel`` was set.
        """
        check_image_name(reference)
        return self._loading.load(
            reference,
            target,
            blobs,
            labels=labels or {},
            platform=self._platform,
            cancel=cancel,
            progress=progress,
        )

    def wrap_disk(self, reference: str, digest: Digest) -> ImageRecord:
        """Give a bare disk image in the store a manifest and a name, which moves if it exists.

        The same blob gives the same manifest, on any machine and at any time. Idempotent.

        Args:
            reference: The name.
            digest: The blob.

        Raises:
            InvalidNameError: No image can have the name.
            BlobNotFoundError: There is no such blob.
            DiskNotFoundError: The blob is a document.
            NoSpaceError: There is too little room.
        """
        self._backing.check_writable()
        blob = self._backing.content.info(digest)
        bare_disk(blob)
        check_operation()  # from here on it is done
        wrapped = wrap_disk(digest, blob.size)
        target = wrapped.target
        return self.load(
            reference,
            target,
            [
                BlobToLoad(digest, None, media_type=wrapped.layer.media_type),
                BlobToLoad(Digest.of(wrapped.config), wrapped.config, media_type=OCI_CONFIG),
                BlobToLoad(target.digest, wrapped.manifest, media_type=target.media_type),
            ],
        )

    def export(
        self,
        reference: str,
        out: Path | Writable,
        *,
        format: ArchiveFormat | Literal["oci", "docker"] = ArchiveFormat.OCI,  # noqa: A002
        platform: Platform | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        """Write an image as a tar; the same image gives the same bytes.

        ``oci`` holds every complete manifest with its digests unchanged and is read by skopeo,
        ``docker load`` and containerd. ``docker`` holds one platform and is for old engines:
        layers compressed with zstd are decompressed.

        A file appears, durable, when it is whole; a failure leaves what had its name. To a pipe
        the tar is streamed, and after a failure lacks its end.

        Args:
            reference: The image.
            out: A path, or something to write to such as standard output.
            format: See above.
            platform: Of the manifest that docker reads; None: this machine's.
            cancel: Stops the work between two chunks.
            progress: Told of every chunk.

        Raises:
            UsageError: The format is unknown, or ``out`` is a directory.
            ImageNotFoundError: No image has the name.
            ContentMissingError: No manifest is complete, or the platform's is there in part.
            PlatformNotFoundError: ``docker``, and there is nothing for the platform.
            CorruptBlobError: A stored blob is not what its digest says.
            LayerError: ``docker``, and a layer cannot be decompressed.
            DiffIDMismatchError: ``docker``, and a layer is not what the config says.
            NoSpaceError: No room for the file.
            InterruptedOperationError: ``cancel`` was set.
        """
        if format not in tuple(ArchiveFormat):
            raise UsageError(f"archive format {format!r} is neither oci nor docker", value=format)
        record = self.get(reference)
        with image_output(out) as stream:
            ImageExport(self._backing, self._leasing).export(
                record,
                stream,
                archive_format=ArchiveFormat(format),
                platform=platform or self._platform,
                cancel=cancel,
                progress=progress,
            )

    def inspect(self, reference: str) -> ImageDetails:
        """Collect what there is to know of an image, also of one with holes.

        Raises:
            ImageNotFoundError: No image has the name.
            IntegrityError: The image's own index or manifest is not valid.
        """
        return ImageInspection(self._backing, self._platform).inspect(self.get(reference))

    def adopt(
        self,
        reference: str,
        target: Descriptor,
        lease: Lease,
        *,
        platform: Platform | None = None,
        labels: Mapping[str, str | None] | None = None,
    ) -> ImageRecord:
        """Point a name, which moves if it exists, to content that the caller's lease holds.

        Labels of the blobs are completed so that they live as long as the image. Idempotent.

        Args:
            reference: The name.
            target: The manifest or index.
            lease: Holds its blobs.
            platform: The platform that must not be there in part only; None: this machine's.
            labels: Set on the image, or removed where the value is None.

        Raises:
            InvalidNameError: No image can have the name.
            ContentMissingError: The content, or a part of it, is not in the store.
            MalformedDocumentError: It is no valid manifest or index.
        """
        check_image_name(reference)
        self._import.link(target, lease, platform or self._platform)
        [record] = self._names.put_all([(reference, target)], lease)
        changes = {
            key: value for key, value in (labels or {}).items() if record.labels.get(key) != value
        }
        return (changes and self._names.update_labels(record.name, changes)) or record

    def create(self, reference: str, target: Descriptor) -> ImageRecord:
        """Give a name to content whose blobs are in the store already.

        Labels of the blobs are completed so that they live as long as the image. Success if the
        name points there already.

        Raises:
            InvalidNameError: No image can have the name.
            AlreadyExistsError: The name points elsewhere; see :meth:`replace`.
            ContentMissingError: The content, or a part of it, is not in the store.
            MalformedDocumentError: It is no valid manifest or index.
        """
        check_image_name(reference)
        with self._leasing.hold("create") as lease:
            self._import.link(target, lease, self._platform)
            return self._names.create(reference, target)

    def replace(self, reference: str, target: Descriptor) -> ImageRecord:
        """Point an existing name to other content; its labels stay. Idempotent.

        Raises:
            ImageNotFoundError: No image has exactly this name.
            ContentMissingError: The content, or a part of it, is not in the store.
            MalformedDocumentError: It is no valid manifest or index.
        """
        with self._leasing.hold("replace") as lease:
            self._import.link(target, lease, self._platform)
            return self._names.replace(reference, target)
