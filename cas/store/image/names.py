"""Names of images in containerd: making, moving, removing.

Each change happens under the lock of the name, since containerd 1.x cannot compare and delete. A
name is given only to content that the caller holds a lease on.
"""

__all__ = ["ImageNames"]

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from cas.errors import AlreadyExistsError, CasError, ImageNotFoundError, InvalidNameError
from cas.model.descriptor import Descriptor
from cas.model.labels import DOWNLOADED
from cas.model.records import ImageRecord
from cas.model.reference import normalise_docker_name
from cas.store.backing import Backing
from cas.store.leasing import Lease
from cas.store.locking import Locks

_log = logging.getLogger(__name__)

_LABELS = {DOWNLOADED: "true"}


class ImageNames:
    """The image records of one store.

    Args:
        backing: The store.
        locks: Its locks.
    """

    def __init__(self, backing: Backing, locks: Locks) -> None:
        self._images = backing.images
        self._locks = locks

    def find(self, reference: str) -> ImageRecord | None:
        """Give the image of exactly this name or of its canonical form; None if there is none."""
        record = self._get(reference)
        if record is None:
            try:
                canonical = normalise_docker_name(reference)
            except InvalidNameError:
                return None
            if canonical != reference:
                record = self._get(canonical)
        return record

    def get(self, reference: str) -> ImageRecord:
        """Give the image.

        Raises:
            ImageNotFoundError: No image has the name.
        """
        record = self.find(reference)
        if record is None:
            raise ImageNotFoundError(
                f"no image is named {reference!r}; 'cas image ls' lists the names",
                reference=reference,
            )
        return record

    def put(
        self, name: str, target: Descriptor, labels: Mapping[str, str] = _LABELS
    ) -> ImageRecord:
        """Make the name with labels, or move it; its own labels stay then. Idempotent."""
        with self._locks.image(name):
            return self._put(name, target, labels)[0]

    def put_all(self, named: Sequence[tuple[str, Descriptor]], lease: Lease) -> list[ImageRecord]:
        """Make or move several names; after a failure they are as they were.

        Args:
            named: Names and what they are to point to.
            lease: Keeps what names pointed to before, until it is certain that they move.
        """
        records = []
        with ExitStack() as undo:
            for name, target in named:
                with self._locks.image(name):
                    found = self._get(name)
                    if found is not None:
                        lease.pin_blob(found.target.digest)
                    record, before = self._put(name, target)
                records.append(record)
                undo.callback(self._restore, record, before)
            undo.pop_all()
        return records

    def create(self, name: str, target: Descriptor) -> ImageRecord:
        """Make the name; success if it points there already.

        Raises:
            AlreadyExistsError: It points elsewhere.
        """
        with self._locks.image(name):
            found = self._get(name)
            if found is not None and found.target.digest != target.digest:
                raise AlreadyExistsError(
                    f"image {name!r} exists and is {found.target.digest}, not {target.digest}",
                    reference=name,
                    actual=found.target.digest,
                    expected=target.digest,
                )
            return self._put(name, target)[0]

    def replace(self, name: str, target: Descriptor) -> ImageRecord:
        """Move an existing name.

        Raises:
            ImageNotFoundError: No image has exactly this name.
        """
        with self._locks.image(name):
            if self._get(name) is None:
                raise ImageNotFoundError(
                    f"no image is named {name!r}, so there is nothing to replace", reference=name
                )
            return self._put(name, target)[0]

    def update_labels(self, name: str, labels: dict[str, str | None]) -> ImageRecord | None:
        """Set labels, remove those with the value None; None if the image is gone."""
        with self._locks.image(name):
            record = self._get(name)
            return record and self._images.update_labels(record, labels)

    def remove(self, name: str) -> bool:
        """Remove exactly this name; False if there was none."""
        with self._locks.image(name):
            return self._images.delete(name)

    def _get(self, name: str) -> ImageRecord | None:
        try:
            return self._images.get(name)
        except ImageNotFoundError:
            return None

    def _put(
        self, name: str, target: Descriptor, labels: Mapping[str, str] = _LABELS
    ) -> tuple[ImageRecord, ImageRecord | None]:
        """Give the record now and the one before."""
        # containerd keeps no more of a target than this.
        target = Descriptor(target.media_type, target.digest, target.size)
        before = self._get(name)
        if before is None:
            return self._images.create(name, target, {**labels, **_LABELS}), None
        record = before
        if before.target != target:
            record = self._images.update_target(name, target)
        if record.labels.get(DOWNLOADED) != _LABELS[DOWNLOADED]:
            record = self._images.update_labels(record, dict(_LABELS))
        return record, before

    def _restore(self, record: ImageRecord, before: ImageRecord | None) -> None:
        """Undo one of several names, unless somebody has moved it since."""
        try:
            with self._locks.image(record.name):
                now = self._get(record.name)
                if now is None or now.target.digest != record.target.digest:
                    return
                if before is None:
                    self._images.delete(record.name)
                elif before.target != now.target:
                    self._images.update_target(record.name, before.target)
        except CasError as error:
            # The failure that led here is the one to report.
            _log.warning("name not restored image=%s error=%s", record.name, error)
