"""From a manifest or index in the store to the layers of one platform; a use case of the store.

Only reads. Invariants: the choice depends on the documents alone, never on what happens to be
present, so that a device chooses the same manifest today and after more content came; a document
is believed only if its bytes hash to its digest.
"""

__all__ = ["ImageResolution", "Layer", "ResolvedImage", "missing_layer", "read_document"]

from collections.abc import Iterator
from dataclasses import dataclass

from cas.errors import (
    BlobNotFoundError,
    ContentMissingError,
    CorruptBlobError,
    LayerError,
    LimitExceededError,
    MalformedDocumentError,
    PlatformNotFoundError,
)
from cas.model.cancellation import check_operation
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import ChainID, DiffID, Digest, chain_ids
from cas.model.documents import (
    Document,
    ImageConfig,
    Index,
    Manifest,
    parse_config,
    parse_document,
)
from cas.model.limits import Limits
from cas.model.media_types import (
    is_config,
    is_index,
    is_layer,
    is_manifest,
    is_unpackable_layer,
)
from cas.model.platforms import matches, order_by_preference
from cas.model.records import ImageRecord
from cas.store.ports import BlobReader

_LONGEST_LIST = 1000
"""Characters of what an image has to offer."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image.

    Args:
        descriptor: Of its blob.
        diff_id: What its uncompressed tar must hash to.
        chain_id: Name of the snapshot of this layer on top of those below.
    """

    descriptor: Descriptor
    diff_id: DiffID
    chain_id: ChainID


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image for one platform, complete as far as its documents go.

    Args:
        record: The name it was found under.
        root: What the name points to.
        manifest: Of the chosen platform; ``root`` itself when that is a manifest.
        manifest_document: The parsed manifest.
        config: The parsed config.
        config_raw: The config's bytes.
        layers: Bottom first; whether their blobs are present was not looked at.
    """

    record: ImageRecord
    root: Descriptor
    manifest: Descriptor
    manifest_document: Manifest
    config: ImageConfig
    config_raw: bytes
    layers: tuple[Layer, ...]

    @property
    def config_descriptor(self) -> Descriptor:
        """Of the config's blob."""
        return self.manifest_document.config


def read_document(content: BlobReader, descriptor: Descriptor, limits: Limits) -> bytes:
    """Read a small blob whole and verify it.

    Raises:
        ContentMissingError: It is not in the store.
        CorruptBlobError: The stored bytes are not those of the digest.
        MalformedDocumentError: It has another size than the descriptor says.
        LimitExceededError: It is larger than a document may be.
        InterruptedOperationError: The operation that this belongs to was stopped.
    """
    check_operation()
    if descriptor.size > limits.document_bytes:
        raise LimitExceededError(
            f"{descriptor.digest} ({descriptor.media_type}) has {descriptor.size} bytes, more than "
            f"the {limits.document_bytes} that a document may have",
            limit=limits.document_bytes,
            actual=descriptor.size,
        )
    try:
        raw = content.read_all(descriptor.digest, limit=limits.document_bytes)
    except BlobNotFoundError as error:
        raise ContentMissingError(
            f"{descriptor.digest} ({descriptor.media_type}) is not in the store; import or pull "
            "the image again",
            digest=descriptor.digest,
        ) from error
    actual = Digest.of(raw)
    if actual != descriptor.digest:
        raise CorruptBlobError(
            f"stored blob {descriptor.digest} hashes to {actual}; run 'cas check --fix'",
            digest=descriptor.digest,
            actual=actual,
        )
    if len(raw) != descriptor.size:
        raise MalformedDocumentError(
            f"{descriptor.digest} has {len(raw)} bytes, its descriptor says {descriptor.size}",
            expected=descriptor.size,
            actual=len(raw),
        )
    return raw


def missing_layer(layer: Descriptor) -> ContentMissingError:
    """Make the error that says that a layer is not in the store, and how it may come there."""
    if layer.may_be_absent:
        return ContentMissingError(
            f"layer {layer.digest} is given out by its owner only and was not fetched; get it from "
            f"{layer.urls[0][:200]!r} and store it with 'cas blob ingest'",
            digest=layer.digest,
        )
    return ContentMissingError(
        f"layer {layer.digest} is not in the store; import or pull the image again",
        digest=layer.digest,
    )


class ImageResolution:
    """Reads documents from one store.

    Args:
        content: Where the blobs are.
        limits: What a document may be.
    """

    def __init__(self, content: BlobReader, limits: Limits) -> None:
        self._content = content
        self._limits = limits

    def document(self, descriptor: Descriptor) -> Document:
        """Read and parse a manifest or index.

        Raises:
            ContentMissingError: It is not in the store.
            CorruptBlobError: The stored bytes are not those of the digest.
            MalformedDocumentError: It is no manifest or index.
            LimitExceededError: It is larger than allowed.
        """
        raw = read_document(self._content, descriptor, self._limits)
        return parse_document(raw, descriptor, self._limits)

    def config(self, manifest: Manifest) -> tuple[bytes, ImageConfig]:
        """Read and parse the config of an image; raises as :meth:`document`."""
        raw = read_document(self._content, manifest.config, self._limits)
        return raw, parse_config(raw, manifest.config, self._limits)

    def resolve(self, record: ImageRecord, platform: Platform) -> ResolvedImage:
        """Choose the manifest for a platform and check that it and its config fit together.

        An image that is a single manifest is taken whatever its platform.

        Args:
            record: The image.
            platform: What it shall run on.

        Raises:
            PlatformNotFoundError: The index has nothing for this platform.
            ContentMissingError: The manifest, or another document on the way, is not in the store.
            MalformedDocumentError: A document is not valid, or is an artifact's, or the layers
                are not as many as the diff IDs.
            LayerError: A layer is of a kind that cannot be unpacked.
            LimitExceededError: A document is larger or nested deeper than allowed.
            CorruptBlobError: A stored document's bytes are not those of its digest.
        """
        root = record.target
        descriptor, manifest = self.choose(record.name, root, platform)
        raw, config = self.config(manifest)
        layers = _layers(descriptor, manifest, config)
        return ResolvedImage(record, root, descriptor, manifest, config, raw, layers)

    def choose(
        self, name: str, root: Descriptor, platform: Platform
    ) -> tuple[Descriptor, Manifest]:
        """Choose the manifest for a platform; an image that is a single manifest is taken as it is.

        Args:
            name: What messages call the image.
            root: Its manifest or index.
            platform: What it shall run on.

        Raises:
            PlatformNotFoundError: The index has nothing for this platform.
            ContentMissingError: A document on the way is not in the store.
            MalformedDocumentError: A document is not valid.
            LimitExceededError: A document is larger or nested deeper than allowed.
            CorruptBlobError: A stored document's bytes are not those of its digest.
        """
        candidate = next(self._candidates(root, platform), None)
        if candidate is not None:
            return candidate
        raise PlatformNotFoundError(
            f"image {name!r} has nothing for {platform}; it has "
            + (", ".join(self._offered(root))[:_LONGEST_LIST] or "no platform at all"),
            reference=name,
            platform=platform,
        )

    def _candidates(
        self, root: Descriptor, platform: Platform
    ) -> Iterator[tuple[Descriptor, Manifest]]:
        """Yield manifests that may run on the platform, best first."""
        document = self.document(root)
        if isinstance(document, Manifest):
            yield root, document
            return
        entries = list(self._entries(document, depth=1))
        for descriptor in order_by_preference(entries, platform):
            manifest = self.document(descriptor)
            if isinstance(manifest, Manifest) and (
                descriptor.platform is not None or self._runs_on(manifest, platform)
            ):
                yield descriptor, manifest

    def _runs_on(self, manifest: Manifest, platform: Platform) -> bool:
        """Ask the config, where the index does not say the platform."""
        if not is_config(manifest.config.media_type):
            return False
        offered = self.config(manifest)[1].platform
        return offered is not None and matches(offered, platform)

    def _entries(self, index: Index, depth: int) -> Iterator[Descriptor]:
        """Yield the manifest entries of an index and of those nested in it, in order."""
        if depth > self._limits.index_depth:
            raise LimitExceededError(
                f"indexes are nested more than {self._limits.index_depth} deep",
                limit=self._limits.index_depth,
            )
        for entry in index.manifests:
            if is_manifest(entry.media_type):
                yield entry
            elif is_index(entry.media_type):
                yield from self._nested_entries(entry, depth)

    def _nested_entries(self, entry: Descriptor, depth: int) -> Iterator[Descriptor]:
        try:
            nested = self.document(entry)
        except ContentMissingError:
            return  # an index of platforms that were not fetched
        if isinstance(nested, Index):
            yield from self._entries(nested, depth + 1)

    def _offered(self, root: Descriptor) -> list[str]:
        document = self.document(root)
        if isinstance(document, Manifest):
            return []
        platforms = (entry.platform for entry in self._entries(document, depth=1))
        return sorted({str(each) for each in platforms if each and each.os != "unknown"})


def _layers(descriptor: Descriptor, manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
    # Some tools put documents of other types among the layers; diff IDs count layers only.
    blobs = [each for each in manifest.layers if is_layer(each.media_type)]
    for each in blobs:
        if not is_unpackable_layer(each.media_type):
            raise LayerError(
                f"layer {each.digest} of {descriptor.digest} has the media type "
                f"{each.media_type!r}, which cannot be unpacked",
                digest=each.digest,
                media_type=each.media_type,
            )
    if len(blobs) != len(config.diff_ids):
        raise MalformedDocumentError(
            f"manifest {descriptor.digest} has {len(blobs)} layers and its config "
            f"{manifest.config.digest} {len(config.diff_ids)} diff IDs; they must be as many",
            layers=len(blobs),
            diff_ids=len(config.diff_ids),
        )
    chain = chain_ids(config.diff_ids)
    return tuple(map(Layer, blobs, config.diff_ids, chain))
