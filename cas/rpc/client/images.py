"""Images, asked for from the service; see :class:`cas.store.image.images.Images` for the promises.

An archive that the service may read is named to it; every other one is sent, a directory as a tar.
"""

__all__ = ["ImagesClient"]

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from cas._gen.cas.v1 import images_pb2, images_pb2_grpc, types_pb2
from cas.errors import ContentMissingError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.limits import Limits
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import ImageRecord, PulledImage
from cas.rpc import messages, values
from cas.rpc.client.calls import Calls
from cas.rpc.client.facts import ServiceFacts
from cas.rpc.client.running import Send
from cas.store.filters import ImageFilters

if TYPE_CHECKING:
    from cas.rpc.client.archive_upload import Missing
    from cas.store.content.sources import Reader
    from cas.store.image.archives.tar_writer import Writable
    from cas.store.image.details import ImageDetails
    from cas.store.image.export import ArchiveFormat
    from cas.store.image.loading import BlobToLoad


class ImagesClient:
    """The images of a service's store; may be shared by threads.

    Args:
        calls: Makes the calls.
        facts: What the service said of itself.
        limits: What documents may be.
    """

    def __init__(self, calls: Calls, facts: ServiceFacts, limits: Limits) -> None:
        self._calls = calls
        self._facts = facts
        self._limits = limits
        self._stub = images_pb2_grpc.ImagesStub(calls.channel)

    @property
    def platform(self) -> Platform:
        """What images are resolved for."""
        return self._facts.platform

    def import_archive(
        self,
        source: "Path | Reader",
        *,
        name: str | None = None,
        platform: Platform | None = None,
        origin: str = "the input stream",
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> list[ImageRecord]:
        """Bring in all images of an archive and record their names, which move if they exist.

        See :meth:`cas.store.image.images.Images.import_archive` for what is taken, for what holds
        after a failure, for the arguments and for the errors. Of an OCI layout in a directory only
        the blobs are sent that the store lacks. Idempotent. Blocks.
        """
        named = self._facts.path_for_service(source) if isinstance(source, Path) else None
        # Links in a directory lead wherever its owner likes, which the service does not follow.
        if named is None or named.is_dir():
            header = images_pb2.UploadImageHeader(
                name=name or "",
                platform=_platform(platform),
                source=repr(str(source)) if isinstance(source, Path) else origin,
            )
            return self._upload(source, header, cancel, progress)
        request = images_pb2.ImportImageRequest(
            path=str(named), name=name or "", platform=_platform(platform)
        )
        outcome = self._calls.outcome(
            self._stub.Import,
            request,
            action=f"import {str(named)!r}",
            progress=progress,
            cancel=cancel,
        )
        return [values.image(image) for image in outcome.imported.images]

    def pull(
        self,
        reference: str,
        *,
        name: str | None = None,
        platform: Platform | None = None,
        image: UUID | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> PulledImage:
        """Pull an image for one platform from its registry.

        See :meth:`cas.pull.pull.Pull.image` for what holds after a failure, for the arguments and
        for the errors; credentials and policy are those of the service. Idempotent. Blocks.
        """
        request = images_pb2.PullImageRequest(
            reference=reference,
            name=name or "",
            platform=_platform(platform),
            uuid="" if image is None else str(image),
        )
        pulled = self._calls.outcome(
            self._stub.Pull,
            request,
            action=f"pull image {reference!r}",
            progress=progress,
            cancel=cancel,
        ).pulled
        record = values.image(pulled.image)
        return PulledImage(record, pulled.size, pulled.downloaded, pulled.signed_by)

    def export(
        self,
        reference: str,
        out: "Path | Writable",
        *,
        format: "ArchiveFormat | Literal['oci', 'docker']" = "oci",  # noqa: A002 (the library's)
        platform: Platform | None = None,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        """Write an image as a tar; the same image gives the same bytes.

        The service verifies every blob while it sends it. A file appears, durable, when the tar is
        whole; see :meth:`cas.store.image.images.Images.export` for the arguments and the errors.
        """
        from cas.store.image.output import image_output

        request = images_pb2.ExportImageRequest(
            name=reference, format=format, platform=_platform(platform)
        )
        answers = self._calls.stream(
            self._stub.Export, request, action=f"export image {reference!r}", cancel=cancel
        )
        progress.start("export", reference, None)
        try:
            with closing(answers), image_output(out) as stream:
                for answer in answers:
                    stream.write(answer.data)
                    progress.advance("export", reference, len(answer.data))
        finally:
            progress.finish("export", reference)

    def iter_images(self, filters: ImageFilters | None = None) -> Iterator[ImageRecord]:
        """Stream the images that pass the filters, all without filters."""
        request = images_pb2.ListImagesRequest(filters=filters.texts if filters else ())
        with closing(self._calls.stream(self._stub.List, request, action="list images")) as answers:
            for answer in answers:
                yield from map(values.image, answer.images)

    def get(self, reference: str) -> ImageRecord:
        """Give the image.

        Raises:
            ImageNotFoundError: No image has the name.
        """
        request = images_pb2.GetImageRequest(name=reference)
        action = f"look up image {reference!r}"
        return values.image(self._calls.unary(self._stub.Get, request, action=action))

    def exists(self, reference: str) -> bool:
        """Whether an image has the name; a failed look-up raises."""
        request = images_pb2.ImageExistsRequest(name=reference)
        action = f"look for image {reference!r}"
        return self._calls.unary(self._stub.Exists, request, action=action).exists

    def inspect(self, reference: str) -> "ImageDetails":
        """Collect what there is to know of an image, also of one with holes.

        Raises:
            ImageNotFoundError: No image has the name.
            IntegrityError: The image's own index or manifest is not valid.
        """
        from cas.rpc.image_values import image_details

        request = images_pb2.InspectImageRequest(name=reference)
        action = f"inspect image {reference!r}"
        answer = self._calls.unary(self._stub.Inspect, request, action=action)
        return image_details(answer, self._limits)

    def create(self, reference: str, target: Descriptor) -> ImageRecord:
        """Give a name to content whose blobs are in the store already.

        Success if the name points there already.

        Raises:
            InvalidNameError: No image can have the name.
            AlreadyExistsError: The name points elsewhere; see :meth:`replace`.
            ContentMissingError: The content, or a part of it, is not in the store.
            MalformedDocumentError: It is no valid manifest or index.
        """
        request = images_pb2.CreateImageRequest(name=reference, target=messages.descriptor(target))
        action = f"create image {reference!r}"
        return values.image(self._calls.unary(self._stub.Create, request, action=action))

    def replace(self, reference: str, target: Descriptor) -> ImageRecord:
        """Point an existing name to other content; its labels stay. Idempotent.

        Raises:
            ImageNotFoundError: No image has exactly this name.
            ContentMissingError: The content, or a part of it, is not in the store.
            MalformedDocumentError: It is no valid manifest or index.
        """
        request = images_pb2.ReplaceImageRequest(name=reference, target=messages.descriptor(target))
        action = f"replace image {reference!r}"
        return values.image(self._calls.unary(self._stub.Replace, request, action=action))

    def tag(self, reference: str, new: str) -> ImageRecord:
        """Give an image another name; a name that exists is moved. Idempotent.

        Raises:
            InvalidNameError: No image can have the new name.
            ImageNotFoundError: No image has the old name.
        """
        request = images_pb2.TagImageRequest(name=reference, new_name=new)
        action = f"tag image {reference!r}"
        return values.image(self._calls.unary(self._stub.Tag, request, action=action))

    def wrap_disk(self, reference: str, digest: Digest) -> ImageRecord:
        """Give a bare disk image in the store a manifest and a name, which moves if it exists.

        See :meth:`cas.store.image.images.Images.wrap_disk`.
        """
        request = images_pb2.WrapDiskRequest(name=reference, digest=str(digest))
        action = f"wrap disk image {digest}"
        return values.image(self._calls.unary(self._stub.WrapDisk, request, action=action))

    def remove(self, reference: str, *, force: bool = False) -> bool:
        """Remove a name; what nothing else needs goes with containerd's next collection.

        Args:
            reference: The image.
            force: Remove it even if a volume was prepared from it.

        Returns:
            Whether there was one.

        Raises:
            InUseError: A volume was prepared from it, and ``force`` is not set.
            StoreMetadataLostError: containerd's database was emptied; nothing is removed.
        """
        request = images_pb2.RemoveImageRequest(name=reference, force=force)
        action = f"remove image {reference!r}"
        return self._calls.unary(self._stub.Remove, request, action=action).removed

    def load(
        self,
        reference: str,
        target: Descriptor,
        blobs: "Iterable[BlobToLoad]",
        *,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> ImageRecord:
        """Store the blobs of one image and point a name to it, which moves if it exists.

        See :meth:`cas.store.image.images.Images.load` for what holds after a failure, for the
        arguments and for the errors. Files are read by the service and must lie where it may.
        If the bytes of all others together do not fit into one request, these blobs are sent
        before it and pinned meanwhile. Idempotent.

        Raises:
            DeniedError: A file lies where the service may not read.
        """
        from cas.rpc.client.image_loading import load_image

        return load_image(
            self._calls,
            self._facts,
            reference,
            target,
            blobs,
            cancel=cancel,
            progress=progress,
        )

    def _upload(
        self,
        source: "Path | Reader",
        header: images_pb2.UploadImageHeader,
        cancel: Cancellation | None,
        progress: Progress,
    ) -> list[ImageRecord]:
        from cas.rpc.client.archive_upload import send_archive
        from cas.rpc.client.blobs import BlobsClient

        partial = False

        def upload(missing: "Missing | None") -> list[ImageRecord]:
            def produce(send: Send[images_pb2.UploadImageRequest]) -> None:
                nonlocal partial
                send(images_pb2.UploadImageRequest(header=header))
                partial = send_archive(
                    source,
                    lambda data: send(images_pb2.UploadImageRequest(data=data)),
                    origin=header.source,
                    limits=self._limits,
                    progress=progress,
                    missing=missing,
                )
                send(images_pb2.UploadImageRequest(end=types_pb2.UploadEnd()))

            answer = self._calls.upload(
                self._stub.Upload, produce, action=f"import {header.source}", cancel=cancel
            )
            return [values.image(image) for image in answer.images]

        try:
            return upload(BlobsClient(self._calls, self._facts).missing)
        except ContentMissingError:
            if not partial:
                raise
            return upload(None)  # what was left out has been collected since


def _platform(platform: Platform | None) -> types_pb2.Platform | None:
    return None if platform is None else messages.platform(platform)
