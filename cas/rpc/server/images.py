"""The service ``cas.v1.Images``."""

__all__ = ["ImagesServicer"]

from collections.abc import Iterator

from cas._gen.cas.v1 import images_pb2, types_pb2
from cas.errors import UsageError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.printable import printable
from cas.model.progress import Progress
from cas.model.records import ImageRecord, PulledImage
from cas.model.reference import check_image_name
from cas.rpc import messages, values
from cas.rpc.server.batches import batched
from cas.rpc.server.call import Call
from cas.rpc.server.prune import PruneCalls
from cas.rpc.server.registry import ONLY_WORK
from cas.rpc.server.reporting import reported
from cas.rpc.server.served import Workshop
from cas.rpc.server.transfer import MAX_NAME, UploadedBytes, first_message, written
from cas.store.filters import parse_image_filters
from cas.store.image.archives.tar_writer import Writable
from cas.store.image.images import ArchiveFormat, BlobToLoad
from cas.store.prune.selection import Scope


class ImagesServicer:
    """Serves the images of a store.

    Args:
        shop: What it works with.
        prune: Serves prunes.
    """

    SERVICE = images_pb2.DESCRIPTOR.services_by_name["Images"]
    READING = frozenset(
        {"get", "exists", "list", "inspect", "export"}
        | {"prune"}  # unless it is no dry run: see PruneCalls
    )
    UNGUARDED: frozenset[str] = frozenset()
    KINDS = ONLY_WORK

    def __init__(self, shop: Workshop, prune: PruneCalls) -> None:
        self._shop = shop
        self._images = shop.store.images
        self._prune = prune

    def create(self, request: images_pb2.CreateImageRequest, _call: Call) -> images_pb2.Image:
        """Give a name to content."""
        return messages.image(self._images.create(request.name, _target(request.target)))

    def replace(self, request: images_pb2.ReplaceImageRequest, _call: Call) -> images_pb2.Image:
        """Point a name elsewhere."""
        return messages.image(self._images.replace(request.name, _target(request.target)))

    def load(
        self, request: images_pb2.LoadImageRequest, call: Call
    ) -> Iterator[images_pb2.LoadImageResponse]:
        """Store blobs and name the image that they are."""
        target = _target(request.target)
        blobs = [self._blob(blob) for blob in request.blobs]

        def work(progress: Progress) -> ImageRecord:
            return self._images.load(
                request.name, target, blobs, cancel=call.cancellation, progress=progress
            )

        record = yield from reported(
            call, self._shop.workers, self._shop.gates.bulk, work, _loading
        )
        yield images_pb2.LoadImageResponse(image=messages.image(record))

    def get(self, request: images_pb2.GetImageRequest, _call: Call) -> images_pb2.Image:
        """Give a record."""
        return messages.image(self._images.get(check_image_name(request.name)))

    def exists(
        self, request: images_pb2.ImageExistsRequest, _call: Call
    ) -> images_pb2.ImageExistsResponse:
        """Tell whether a name exists."""
        return images_pb2.ImageExistsResponse(
            exists=self._images.exists(check_image_name(request.name))
        )

    def list(
        self, request: images_pb2.ListImagesRequest, _call: Call
    ) -> Iterator[images_pb2.ListImagesResponse]:
        """List records."""
        filters = parse_image_filters(request.filters, now=self._shop.store.now())
        for group in batched(map(messages.image, self._images.iter_images(filters))):
            yield images_pb2.ListImagesResponse(images=group)

    def inspect(
        self, request: images_pb2.InspectImageRequest, _call: Call
    ) -> images_pb2.InspectImageResponse:
        """Give everything about an image."""
        return messages.image_details(self._images.inspect(check_image_name(request.name)))

    def tag(self, request: images_pb2.TagImageRequest, _call: Call) -> images_pb2.Image:
        """Give another name."""
        return messages.image(self._images.tag(check_image_name(request.name), request.new_name))

    def wrap_disk(self, request: images_pb2.WrapDiskRequest, _call: Call) -> images_pb2.Image:
        """Make an image of a bare disk image."""
        return messages.image(self._images.wrap_disk(request.name, Digest.parse(request.digest)))

    def remove(
        self, request: images_pb2.RemoveImageRequest, _call: Call
    ) -> images_pb2.RemoveImageResponse:
        """Remove a name."""
        name = check_image_name(request.name)
        return images_pb2.RemoveImageResponse(
            removed=self._images.remove(name, force=request.force)
        )

    def import_(
        self, request: images_pb2.ImportImageRequest, call: Call
    ) -> Iterator[images_pb2.ImportImageResponse]:
        """Bring in an archive that lies in an allowed directory."""
        path, beneath = self._shop.paths.locate(request.path)
        platform = _platform(request)

        def work(progress: Progress) -> list[ImageRecord]:
            return self._images.import_archive(
                path,
                name=request.name or None,
                platform=platform,
                beneath=beneath,
                cancel=call.cancellation,
                progress=progress,
            )

        records = yield from reported(
            call, self._shop.workers, self._shop.gates.bulk, work, _importing
        )
        imported = images_pb2.ImportedImages(images=map(messages.image, records))
        yield images_pb2.ImportImageResponse(imported=imported)

    def pull(
        self, request: images_pb2.PullImageRequest, call: Call
    ) -> Iterator[images_pb2.PullImageResponse]:
        """Bring in an image from its registry."""
        platform, image = _platform(request), values.uuid(request.uuid)

        def work(progress: Progress) -> PulledImage:
            return self._shop.store.pull.image(
                request.reference,
                name=request.name or None,
                platform=platform,
                image=image,
                cancel=call.cancellation,
                progress=progress,
            )

        pulled = yield from reported(
            call, self._shop.workers, self._shop.gates.pulls, work, _pulling
        )
        yield images_pb2.PullImageResponse(
            pulled=images_pb2.PulledImage(
                image=messages.image(pulled.record),
                size=pulled.size,
                downloaded=pulled.downloaded,
                signed_by=pulled.signed_by,
            )
        )

    def upload(
        self, requests: Iterator[images_pb2.UploadImageRequest], call: Call
    ) -> images_pb2.UploadImageResponse:
        """Bring in an archive that the caller sends."""
        header = first_message(requests).header
        platform = _platform(header)
        with call.holding(self._shop.gates.archives):
            records = self._images.import_archive(
                UploadedBytes(requests),
                name=header.name or None,
                platform=platform,
                origin=printable(header.source[:MAX_NAME]) or "the caller's stream",
                cancel=call.cancellation,
            )
        return images_pb2.UploadImageResponse(images=map(messages.image, records))

    def export(
        self, request: images_pb2.ExportImageRequest, call: Call
    ) -> Iterator[images_pb2.ExportImageResponse]:
        """Give an image as a tar."""
        name, platform = check_image_name(request.name), _platform(request)

        def work(out: Writable) -> None:
            self._images.export(
                name,
                out,
                format=_format(request.format),
                platform=platform,
                cancel=call.cancellation,
            )

        for chunk in written(call, self._shop.workers, self._shop.gates.archives, work):
            yield images_pb2.ExportImageResponse(data=chunk)

    def prune(
        self, request: types_pb2.PruneRequest, call: Call
    ) -> Iterator[types_pb2.PruneResponse]:
        """Remove images that no volume uses and that pass the filters."""
        return self._prune.run(request, call, Scope.IMAGES)

    def _blob(self, blob: images_pb2.LoadBlob) -> BlobToLoad:
        size = blob.size if blob.HasField("size") else None
        if size is not None and size < 0:
            raise UsageError(f"a blob of {size} bytes is impossible", size=size)
        digest, media_type = Digest.parse(blob.digest), blob.media_type or None
        if blob.WhichOneof("source") == "path":
            path, beneath = self._shop.paths.locate(blob.path)
            return BlobToLoad(digest, path, size, media_type, blob.move, beneath)
        if blob.move:
            raise UsageError(f"blob {digest} is no file and cannot be moved", digest=digest)
        content = blob.content if blob.WhichOneof("source") == "content" else None
        return BlobToLoad(digest, content, size, media_type)


def _loading(report: types_pb2.Progress) -> images_pb2.LoadImageResponse:
    return images_pb2.LoadImageResponse(progress=report)


def _importing(report: types_pb2.Progress) -> images_pb2.ImportImageResponse:
    return images_pb2.ImportImageResponse(progress=report)


def _pulling(report: types_pb2.Progress) -> images_pb2.PullImageResponse:
    return images_pb2.PullImageResponse(progress=report)


def _target(message: types_pb2.Descriptor) -> Descriptor:
    return values.descriptor(message)


def _platform(
    request: (
        images_pb2.ImportImageRequest
        | images_pb2.UploadImageHeader
        | images_pb2.ExportImageRequest
        | images_pb2.PullImageRequest
    ),
) -> Platform | None:
    return values.platform(request.platform) if request.HasField("platform") else None


def _format(name: str) -> ArchiveFormat:
    if name not in ("", *ArchiveFormat):
        raise UsageError(f"archive format {name[:100]!r} is neither oci nor docker")
    return ArchiveFormat(name or ArchiveFormat.OCI)
