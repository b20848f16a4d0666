"""What a device's configuration says about volumes; values only."""

__all__ = ["AppConfig", "DeviceConfig", "DriveConfig", "VolumeConfig", "VolumeReference"]

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from cas.model.digest import Digest


@dataclass(frozen=True, slots=True)
class DriveConfig:
    """A drive of an app.

    Args:
        image: UUID of its image; None if it is not one.
        digest: Of the image; None where the configuration names none, as for tags.
    """

    image: uuid.UUID | None
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class VolumeReference:
    """Which volume took a drive's place.

    Args:
        volume: Its UUID; None if what is written there is none, or zero.
        generation: Its generation; negative if what is written there is.
    """

    volume: uuid.UUID | None
    generation: int


@dataclass(frozen=True, slots=True)
class AppConfig:
    """An app instance.

    Args:
        app: Its UUID.
        purge: How often its data was purged; counts for the first drive only.
        drives: By index; None for one without an image, which keeps its index.
        references: By the same index.
    """

    app: uuid.UUID
    purge: int
    drives: tuple[DriveConfig | None, ...]
    references: tuple[VolumeReference, ...]


@dataclass(frozen=True, slots=True)
class VolumeConfig:
    """A volume.

    Args:
        clear_text: Whether it asks not to be encrypted.
        content_tree: What it is made from; None for blank ones.
    """

    clear_text: bool
    content_tree: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """The parts of a device's configuration that the conversion needs.

    Args:
        device: UUID of the device.
        apps: Its apps; those without a UUID are left out.
        volumes: By UUID.
        content_trees: Digest of each, by UUID; None where there is none.
    """

    device: uuid.UUID
    apps: tuple[AppConfig, ...]
    volumes: Mapping[uuid.UUID, VolumeConfig]
    content_trees: Mapping[uuid.UUID, Digest | None]
