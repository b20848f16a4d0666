"""Image records: names that point to a manifest or an index."""

__all__ = ["Images"]

import logging
from collections.abc import Iterator, Mapping, Sequence

import grpc

from cas._gen.containerd.services.images.v1 import images_pb2, images_pb2_grpc
from cas.containerd.translation import translated
from cas.containerd.transport import COLLECTION_SECONDS, Transport
from cas.containerd.values import (
    checked_labels,
    descriptor_message,
    descriptor_value,
    instant,
    label_changes,
)
from cas.errors import ImageNotFoundError, InvalidNameError, MalformedDocumentError
from cas.model.descriptor import Descriptor
from cas.model.records import ImageRecord

_logger = logging.getLogger(__name__)

_NO_IMAGE = {grpc.StatusCode.NOT_FOUND: ImageNotFoundError}


class Images:
    """The image records of one namespace.

    Args:
        transport: Channel and namespace.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = images_pb2_grpc.ImagesStub(transport.channel)

    def create(self, name: str, target: Descriptor, labels: Mapping[str, str]) -> ImageRecord:
        """Create a record; the content it points to need not exist.

        Raises:
            AlreadyExistsError: The name is taken.
            UsageError: containerd does not take the name or the target (size 0).
        """
        request = images_pb2.CreateImageRequest(image=_message(name, target, labels))
        with translated(f"create image {name!r}"):
            return _record(self._transport.unary(self._stub.Create, request).image)

    def get(self, name: str) -> ImageRecord:
        """Give the record of exactly this name.

        Raises:
            ImageNotFoundError: There is none.
        """
        with translated(f"get image {name!r}", nearer=_NO_IMAGE):
            answer = self._transport.unary(self._stub.Get, images_pb2.GetImageRequest(name=name))
        return _record(answer.image)

    def update_target(
        self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None
    ) -> ImageRecord:
        """Point an existing name to other content, in one transaction.

        Args:
            name: The name.
            target: Its new target.
            labels: Replace all labels of the record, or None to leave them.

        Raises:
            ImageNotFoundError: There is no such name.
        """
        request = images_pb2.UpdateImageRequest(image=_message(name, target, labels or {}))
        request.update_mask.paths.extend(["target"] if labels is None else ["target", "labels"])
        with translated(f"update image {name!r}", nearer=_NO_IMAGE):
            return _record(self._transport.unary(self._stub.Update, request).image)

    def update_labels(self, record: ImageRecord, labels: Mapping[str, str | None]) -> ImageRecord:
        """Set labels, remove those that are None, leave the others and the target.

        Raises:
            ImageNotFoundError: The name is gone.
        """
        changed, mask = label_changes(labels)
        request = images_pb2.UpdateImageRequest(
            image=_message(record.name, record.target, changed), update_mask=mask
        )
        if not changed:
            return self.get(record.name)
        with translated(f"label image {record.name!r}", nearer=_NO_IMAGE):
            return _record(self._transport.unary(self._stub.Update, request).image)

    def delete(self, name: str, *, sync: bool = False) -> bool:
        """Remove a name. Idempotent.

        Args:
            name: The name.
            sync: Run a collection and wait for it; only if the name existed.

        Returns:
            Whether the name existed.
        """
        seconds = COLLECTION_SECONDS if sync else None
        request = images_pb2.DeleteImageRequest(name=name, sync=sync)
        try:
            with translated(f"delete image {name!r}", nearer=_NO_IMAGE):
                self._transport.unary(self._stub.Delete, request, seconds=seconds)
        except ImageNotFoundError:
            return False
        return True

    def iter_images(self, filters: Sequence[str] = ()) -> Iterator[ImageRecord]:
        """Yield the records that match any of the filters; all without a filter.

        Records whose target is no sha256 are left out with a warning: others put them there.
        """
        with translated("list images"):
            answer = self._transport.unary(
                self._stub.List, images_pb2.ListImagesRequest(filters=filters)
            )
        for image in answer.images:
            try:
                yield _record(image)
            except (InvalidNameError, MalformedDocumentError):
                _logger.warning("foreign image left out name=%r", image.name)


def _message(name: str, target: Descriptor, labels: Mapping[str, str]) -> images_pb2.Image:
    return images_pb2.Image(
        name=name, target=descriptor_message(target), labels=checked_labels(labels)
    )


def _record(image: images_pb2.Image) -> ImageRecord:
    return ImageRecord(
        name=image.name,
        target=descriptor_value(image.target),
        labels=dict(image.labels),
        created=instant(image.created_at),
        updated=instant(image.updated_at),
    )
