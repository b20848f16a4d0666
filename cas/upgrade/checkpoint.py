"""Parses the device's configuration as the old software kept it.

Bytes in, values of ours or :class:`cas.errors.MalformedDocumentError` out; no other error, no
more memory than the limits allow. The file holds EVE's ConfigResponse, bare or as the payload of
an authentication container. Either decodes as the other without complaint, so what counts is
which of them has a device's UUID. Signatures are not checked: the file was, when it came.
"""

__all__ = ["MAX_CHECKPOINT_BYTES", "parse_checkpoint"]

import uuid
from typing import TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from cas._gen.eve.auth.auth_pb2 import AuthContainer
from cas._gen.eve.config import devconfig_pb2 as eve
from cas.errors import InvalidNameError, LimitExceededError, MalformedDocumentError
from cas.model.digest import Digest
from cas.upgrade.device_config import (
    AppConfig,
    DeviceConfig,
    DriveConfig,
    VolumeConfig,
    VolumeReference,
)
from cas.upgrade.message_parts import count_parts

MAX_CHECKPOINT_BYTES = 32 * 1024 * 1024
"""About ten times what a device with ten thousand volumes has."""
_MAX_PARTS = 200_000
"""Messages in a configuration; those ten thousand volumes need some hundred thousand."""

_Message = TypeVar("_Message", bound=Message)


def parse_checkpoint(data: bytes) -> DeviceConfig:
    """Parse a configuration, bare or in its container.

    Args:
        data: The whole file, at most ``MAX_CHECKPOINT_BYTES``.

    Raises:
        MalformedDocumentError: It is neither, or has no device's UUID.
        LimitExceededError: It is larger, or has more parts, than any device's.
    """
    if len(data) > MAX_CHECKPOINT_BYTES:
        raise LimitExceededError(
            f"the configuration is larger than {MAX_CHECKPOINT_BYTES} bytes", size=len(data)
        )
    config = _decode_config(data)
    if config is None:
        container = _decode(AuthContainer(), AuthContainer.DESCRIPTOR, data)
        if container is not None:
            config = _decode_config(container.protectedPayload.payload)
    if config is None:
        raise MalformedDocumentError(
            "it is no device configuration, neither bare nor in an authentication container; "
            "let the device fetch its configuration again"
        )
    return _device_config(config)


def _decode_config(data: bytes) -> eve.EdgeDevConfig | None:
    response = _decode(eve.ConfigResponse(), eve.ConfigResponse.DESCRIPTOR, data)
    if response is None or _uuid(response.config.id.uuid) is None:
        return None
    return response.config


def _decode(message: _Message, kind: Descriptor, data: bytes) -> _Message | None:
    if count_parts(data, kind, _MAX_PARTS) > _MAX_PARTS:
        raise LimitExceededError(f"the configuration has more than {_MAX_PARTS} parts")
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    return message


def _device_config(config: eve.EdgeDevConfig) -> DeviceConfig:
    apps = (_app(app) for app in config.apps)
    volumes = ((_uuid(volume.uuid), volume) for volume in config.volumes)
    trees = ((_uuid(tree.uuid), tree.sha256) for tree in config.contentInfo)
    return DeviceConfig(
        device=uuid.UUID(config.id.uuid),
        apps=tuple(app for app in apps if app is not None),
        volumes={key: _volume(volume) for key, volume in volumes if key is not None},
        content_trees={key: _digest(digest) for key, digest in trees if key is not None},
    )


def _app(app: eve.AppInstanceConfig) -> AppConfig | None:
    key = _uuid(app.uuidandversion.uuid)
    if key is None:
        return None
    return AppConfig(
        app=key,
        purge=app.purge.counter,
        drives=tuple(_drive(drive) for drive in app.drives),
        references=tuple(
            VolumeReference(_uuid(reference.uuid), reference.generationCount)
            for reference in app.volumeRefList
        ),
    )


def _drive(drive: eve.Drive) -> DriveConfig | None:
    if not drive.HasField("image") or not drive.image.HasField("uuidandversion"):
        return None
    return DriveConfig(_uuid(drive.image.uuidandversion.uuid), _digest(drive.image.sha256))


def _volume(volume: eve.Volume) -> VolumeConfig:
    return VolumeConfig(volume.clear_text, _uuid(volume.origin.downloadContentTreeID))


def _uuid(text: str) -> uuid.UUID | None:
    """Parse a UUID in any form that EVE's library takes; None if it is none, or zero."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    return value if value.int else None


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse_foreign(text)
    except InvalidNameError:
        return None
