"""What there is to know about an image, read from messages; see :mod:`cas.rpc.values`."""

__all__ = [
    "image_details",
    "layer",
    "platform_details",
    "resolved_image",
]

from cas._gen.cas.v1 import images_pb2
from cas.errors import InvalidNameError
from cas.model.digest import ChainID, DiffID, Digest
from cas.model.documents import Manifest, parse_config, parse_document
from cas.model.limits import Limits
from cas.model.records import ImageRecord
from cas.rpc.values import descriptor, image, platform
from cas.store.image.details import ImageDetails, PlatformDetails
from cas.store.image.resolution import Layer, ResolvedImage


def image_details(
    message: images_pb2.InspectImageResponse, limits: Limits | None = None
) -> ImageDetails:
    """Read everything about an image; ``limits`` bound its documents."""
    record = image(message.image)
    resolved = None
    if message.HasField("resolved"):
        resolved = resolved_image(message.resolved, record, limits or Limits())
    return ImageDetails(
        record=record,
        platforms=tuple(map(platform_details, message.platforms)),
        size=message.size,
        resolved=resolved,
        problem=message.problem or None,
        unpacked=message.unpacked,
    )


def platform_details(message: images_pb2.ImagePlatform) -> PlatformDetails:
    """Read one manifest of an image."""
    return PlatformDetails(
        platform=platform(message.platform) if message.HasField("platform") else None,
        manifest=descriptor(message.manifest),
        size=message.size,
        missing=tuple(map(Digest.parse, message.missing)),
        not_fetched=tuple(map(Digest.parse, message.not_fetched)),
    )


def resolved_image(
    message: images_pb2.ResolvedImage, record: ImageRecord, limits: Limits
) -> ResolvedImage:
    """Read an image for one platform; its documents are parsed from their bytes.

    Raises:
        MalformedDocumentError: A document is not valid.
        LimitExceededError: It is larger than allowed.
    """
    manifest = descriptor(message.manifest)
    document = parse_document(message.manifest_document, manifest, limits)
    if not isinstance(document, Manifest):
        raise InvalidNameError(
            f"{manifest.digest} is no manifest but {manifest.media_type}", digest=manifest.digest
        )
    return ResolvedImage(
        record=record,
        root=record.target,
        manifest=manifest,
        manifest_document=document,
        config=parse_config(message.config, document.config, limits),
        config_raw=message.config,
        layers=tuple(map(layer, message.layers)),
    )


def layer(message: images_pb2.ImageLayer) -> Layer:
    """Read a layer."""
    return Layer(
        descriptor=descriptor(message.descriptor),
        diff_id=DiffID.parse(message.diff_id),
        chain_id=ChainID.parse(message.chain_id),
    )
