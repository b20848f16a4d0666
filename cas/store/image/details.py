"""What there is to know about an image; only reads."""

__all__ = ["ImageDetails", "ImageInspection", "PlatformDetails"]


from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from cas.errors import (
    ContentMissingError,
    IntegrityError,
    PlatformNotFoundError,
    SnapshotNotFoundError,
)
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.documents import Index, Manifest
from cas.model.media_types import is_config, is_index, is_manifest
from cas.model.platforms import is_attestation
from cas.model.records import ImageRecord
from cas.store.backing import Backing
from cas.store.image.contents import StoreContents
from cas.store.image.resolution import ImageResolution, ResolvedImage


@dataclass(frozen=True, slots=True)
class PlatformDetails:
    """One manifest of an image.

    Args:
        platform: What it runs on; None where neither index nor config says it.
        manifest: Its descriptor.
        size: Bytes of manifest, config and layers, each blob once; 0 if the manifest is absent.
        missing: Blobs of it that are not in the store; the manifest itself if that is absent.
        not_fetched: Layers that are not in the store and need not be: only their owner gives them
            out.
    """

    platform: Platform | None
    manifest: Descriptor
    size: int
    missing: tuple[Digest, ...]
    not_fetched: tuple[Digest, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything of it is in the store."""
        return not self.missing and not self.not_fetched


@dataclass(frozen=True, slots=True)
class ImageDetails:
    """An image with its content.

    Args:
        record: Its name and what that points to.
        platforms: Its manifests in order, attestations left out.
        size: Bytes of all its blobs in the store, each once, whether or not others share them.
        resolved: What this machine would run; None if that is nothing, see ``problem``.
        problem: Why it would not run.
        unpacked: Whether all layers of ``resolved`` stand as snapshots.
    """

    record: ImageRecord
    platforms: tuple[PlatformDetails, ...]
    size: int
    resolved: ResolvedImage | None
    problem: str | None
    unpacked: bool

    def as_document(self) -> dict[str, object]:
        """Give the stable JSON form: sizes in bytes, times RFC 3339 UTC."""
        record, resolved = self.record, self.resolved
        return {
            "name": record.name,
            "digest": str(record.target.digest),
            "media_type": record.target.media_type,
            "target_size": record.target.size,
            "created": _instant(record.created),
            "updated": _instant(record.updated),
            "labels": dict(sorted(record.labels.items())),
            "size": self.size,
            "platforms": [_platform_form(each) for each in self.platforms],
            "manifest": None if resolved is None else str(resolved.manifest.digest),
            "config_digest": None if resolved is None else str(resolved.config_descriptor.digest),
            "config": None if resolved is None else msgspec.json.decode(resolved.config_raw),
            "layers": [] if resolved is None else _layer_forms(resolved),
            "unpacked": self.unpacked,
            "problem": self.problem,
        }


class ImageInspection:
    """Collects details of images of one store.

    Args:
        backing: The store.
        platform: This machine.
    """

    def __init__(self, backing: Backing, platform: Platform) -> None:
        self._backing = backing
        self._platform = platform
        self._resolution = ImageResolution(backing.content, backing.limits)

    def inspect(self, record: ImageRecord) -> ImageDetails:
        """Collect the details; what is damaged or absent is part of the answer.

        Raises:
            IntegrityError: The image's own index or manifest is not valid.
        """
        contents = StoreContents(self._backing)
        sizes: dict[Digest, int] = {}
        platforms = tuple(self._platforms(record.target, None, contents, sizes))
        resolved, problem = None, None
        try:
            resolved = self._resolution.resolve(record, self._platform)
        except (PlatformNotFoundError, ContentMissingError, IntegrityError) as error:
            problem = error.message
        return ImageDetails(
            record=record,
            platforms=platforms,
            size=sum(sizes.values()),
            resolved=resolved,
            problem=problem,
            unpacked=resolved is not None and self._is_unpacked(resolved),
        )

    def _platforms(
        self,
        descriptor: Descriptor,
        platform: Platform | None,
        contents: StoreContents,
        sizes: dict[Digest, int],
        depth: int = 0,
    ) -> Iterator[PlatformDetails]:
        """Yield the manifests below a document and note the size of every blob that is there."""
        if depth > self._backing.limits.index_depth:
            return
        size = contents.size(descriptor.digest)
        if size is None:
            if is_manifest(descriptor.media_type):
                yield PlatformDetails(platform, descriptor, 0, (descriptor.digest,))
            return
        sizes[descriptor.digest] = size
        document = self._resolution.document(descriptor)
        if isinstance(document, Manifest):
            details = self._manifest(descriptor, document, platform, contents, sizes)
            if not is_attestation(descriptor):
                yield details
            return
        yield from self._index(document, contents, sizes, depth)

    def _index(
        self, index: Index, contents: StoreContents, sizes: dict[Digest, int], depth: int
    ) -> Iterator[PlatformDetails]:
        for entry in index.manifests:
            if is_manifest(entry.media_type) or is_index(entry.media_type):
                yield from self._platforms(entry, entry.platform, contents, sizes, depth + 1)
            elif (size := contents.size(entry.digest)) is not None:
                sizes[entry.digest] = size

    def _manifest(
        self,
        descriptor: Descriptor,
        manifest: Manifest,
        platform: Platform | None,
        contents: StoreContents,
        sizes: dict[Digest, int],
    ) -> PlatformDetails:
        own = {descriptor.digest: descriptor.size}
        absent: dict[Digest, Descriptor] = {}
        for blob in (manifest.config, *manifest.layers):
            size = contents.size(blob.digest)
            if size is None:
                absent[blob.digest] = blob
            else:
                own[blob.digest] = size
        sizes.update(own)
        if platform is None and manifest.config.digest in own:
            platform = self._platform_of_config(manifest)
        return PlatformDetails(
            platform,
            descriptor,
            sum(own.values()),
            missing=tuple(each for each, blob in absent.items() if not blob.may_be_absent),
            not_fetched=tuple(each for each, blob in absent.items() if blob.may_be_absent),
        )

    def _platform_of_config(self, manifest: Manifest) -> Platform | None:
        if not is_config(manifest.config.media_type):
            return None
        return self._resolution.config(manifest)[1].platform

    def _is_unpacked(self, resolved: ResolvedImage) -> bool:
        if not resolved.layers:
            return True
        try:
            self._backing.snapshots.stat(str(resolved.layers[-1].chain_id))
        except SnapshotNotFoundError:
            return False
        return True


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _platform_form(details: PlatformDetails) -> dict[str, object]:
    return {
        "platform": None if details.platform is None else str(details.platform),
        "digest": str(details.manifest.digest),
        "size": details.size,
        "complete": details.complete,
        "missing": [str(digest) for digest in details.missing],
        "not_fetched": [str(digest) for digest in details.not_fetched],
    }


def _layer_forms(resolved: ResolvedImage) -> list[dict[str, object]]:
    return [
        {
            "digest": str(layer.descriptor.digest),
            "media_type": layer.descriptor.media_type,
            "size": layer.descriptor.size,
            "diff_id": str(layer.diff_id),
            "chain_id": str(layer.chain_id),
        }
        for layer in resolved.layers
    ]
