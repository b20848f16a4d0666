"""The names of images and what they resolve to; use cases of the store.

All that can be done with images that are in the store without looking at their layers; archives are
the business of :mod:`cas.store.image.images`, which this module is kept apart from: making a volume
needs none of it.
"""

__all__ = ["ImageCatalogue"]

import os
from collections.abc import Iterator
from datetime import UTC

from cas.errors import InUseError
from cas.model.cancellation import check_operation
from cas.model.descriptor import Platform
from cas.model.labels import LAST_USED
from cas.model.platforms import host_platform
from cas.model.records import ImageRecord
from cas.model.reference import check_image_name
from cas.store.backing import Backing
from cas.store.filters import ImageFilters
from cas.store.image.disks import ResolvedDisk, as_digest, bare_disk, image_disk
from cas.store.image.names import ImageNames
from cas.store.image.resolution import ImageResolution, ResolvedImage
from cas.store.leasing import Leasing
from cas.store.locking import Locks
from cas.store.sentinel import Sentinel

_SHOWN_VOLUMES = 5


class ImageCatalogue:
    """The images of one store by name; may be shared by threads.

    References may be given in docker's short form: ``busybox`` finds
    ``docker.io/library/busybox:latest`` unless an image has just that short name.

    Args:
        backing: The store.
        platform: What this machine runs; None asks the kernel.
    """

    def __init__(self, backing: Backing, *, platform: Platform | None = None) -> None:
        self._backing = backing
        self._platform = platform or host_platform(os.uname().machine)
        self._leasing = Leasing(backing)
        self._names = ImageNames(backing, Locks(backing.layout))
        self._sentinel = Sentinel(backing)
        self._resolution = ImageResolution(backing.content, backing.limits)

    @property
    def platform(self) -> Platform:
        """What images are resolved for unless the caller says otherwise."""
        return self._platform

    def iter_images(self, filters: ImageFilters | None = None) -> Iterator[ImageRecord]:
        """Stream the images that pass the filters, all without filters."""
        for record in self._backing.images.iter_images():
            if filters is None or filters.matches(record):
                yield record

    def get(self, reference: str) -> ImageRecord:
        """Give the image.

        Raises:
            ImageNotFoundError: No image has the name.
        """
        return self._names.get(reference)

    def exists(self, reference: str) -> bool:
        """Whether an image has the name; a failed look-up raises."""
        return self._names.find(reference) is not None

    def resolve(self, reference: str, platform: Platform | None = None) -> ResolvedImage:
        """Find the manifest, config and layers of an image for one platform.

        Args:
            reference: The image.
            platform: What it shall run on; None: this machine.

        Raises:
            ImageNotFoundError: No image has the name.
            PlatformNotFoundError: The image has nothing for the platform.
            ContentMissingError: A document is not in the store.
            MalformedDocumentError: A document is not valid, or is an artifact's, or the layers
                are not as many as the diff IDs.
            LayerError: A layer is of a kind that cannot be unpacked.
            CorruptBlobError: A stored document is not what its digest says.
        """
        return self._resolution.resolve(self.get(reference), platform or self._platform)

    def resolve_disk(self, source: str) -> ResolvedDisk:
        """Find the disk in an image for this machine, or take a bare blob for one.

        Args:
            source: Reference of the image, or digest of the blob.

        Raises:
            ImageNotFoundError: No image has the name.
            BlobNotFoundError: No blob has the digest.
            DiskNotFoundError: The image has no disk, or the blob is a document.
            AmbiguousDiskError: The image has several disks.
            DiskFormatError: The disk claims a format that volumes do not have.
            PlatformNotFoundError: The image has nothing for the platform.
            ContentMissingError: A document is not in the store.
            MalformedDocumentError: A document is not valid.
        """
        digest = as_digest(source)
        if digest is not None:
            return bare_disk(self._backing.content.info(digest))
        return image_disk(self._resolution, self.get(source), self._platform)

    def tag(self, reference: str, new: str) -> ImageRecord:
        """Give an image another name; a name that exists is moved. Idempotent.

        Raises:
            InvalidNameError: No image can have the new name.
            ImageNotFoundError: No image has the old name.
        """
        check_image_name(new)
        with self._leasing.hold("tag") as lease:
            record = self.get(reference)
            check_operation()
            lease.pin_blob(record.target.digest)
            # Had it been removed before the pin, its content might be gone already.
            target = self.get(record.name).target
            lease.pin_blob(target.digest)
            check_operation()
            return self._names.put(new, target)

    def remove(self, reference: str, *, force: bool = False) -> bool:
        """Remove a name; what nothing else needs goes with containerd's next collection.

        Volumes made from the image go on working, since they hold their layers themselves; but
        they could not be told apart from others of that name, so it takes ``force``.

        Args:
            reference: The image.
            force: Remove it even if a volume was prepared from it.

        Returns:
            Whether there was one.

        Raises:
            InUseError: A volume was prepared from it, and ``force`` is not set.
            StoreMetadataLostError: containerd's database was emptied; nothing is removed.
        """
        self._backing.check_writable()
        self._sentinel.require()
        record = self._names.find(reference)
        if record is None:
            return False
        if not force:
            self._require_unused(record)
        return self._names.remove(record.name)

    def touch(self, reference: str) -> None:
        """Remember, to the hour, that the image is in use; nothing if it is gone."""
        self._backing.check_writable()
        record = self._names.find(reference)
        if record is None:
            return
        hour = self._backing.clock().astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        label = hour.strftime("%Y-%m-%dT%H:%M:%SZ")
        if record.labels.get(LAST_USED) != label:
            self._names.update_labels(record.name, {LAST_USED: label})

    def _require_unused(self, record: ImageRecord) -> None:
        users = [
            str(volume.name) for volume in self._backing.volumes() if volume.image == record.name
        ]
        if users:
            shown = ", ".join(users[:_SHOWN_VOLUMES])
            more = f" and {len(users) - _SHOWN_VOLUMES} more" if users[_SHOWN_VOLUMES:] else ""
            raise InUseError(
                f"image {record.name!r} is used by volume {shown}{more}; remove the volumes "
                "first, or force it",
                reference=record.name,
                volumes=", ".join(users),
            )
