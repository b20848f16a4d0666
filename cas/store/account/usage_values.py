"""The account of the disk as plain values: entries, and shares of volumes and images."""

__all__ = [
    "CONTAINER",
    "FileSystemUsage",
    "ImageUsage",
    "StoreUsage",
    "UsageEntry",
    "VolumeShare",
]

from dataclasses import dataclass
from pathlib import Path

CONTAINER = "container"
"""The format of a volume that is no disk."""


@dataclass(frozen=True, slots=True)
class UsageEntry:
    """One line of the account.

    Args:
        owner: ``store``, ``volumes``, ``downloader``, ``verifier`` or ``others``.
        part: Of the owner, for example ``content``, ``snapshots`` or ``databases``.
        size: Allocated bytes.
        objects: How many blobs, snapshots or volumes; None where nothing is counted.
    """

    owner: str
    part: str
    size: int
    objects: int | None = None


@dataclass(frozen=True, slots=True)
class VolumeShare:
    """What a volume takes.

    Args:
        name: Of the volume.
        own_bytes: What was written into it, since its last snapshot if it has any; of a disk, what
            its file takes and nobody else has.
        shared_bytes: The image's layers below it, counted in the store's snapshots; of a disk,
            blocks that it shares with its image or other disks, counted once among them.
        snapshot_bytes: Layers that its snapshots froze.
        format: ``container``, or that of the disk.
        virtual_size: Bytes of the disk that a virtual machine sees; 0 for containers.
        clear: Outside the vault.
    """

    name: str
    own_bytes: int
    shared_bytes: int
    snapshot_bytes: int = 0
    format: str = CONTAINER
    virtual_size: int = 0
    clear: bool = False


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """An image's part of the store.

    Args:
        name: Its reference.
        content_bytes: Blobs that it reaches.
        snapshot_bytes: Unpacked layers that it reaches.
        unique_bytes: Of both, what no other image reaches.
    """

    name: str
    content_bytes: int
    snapshot_bytes: int
    unique_bytes: int


@dataclass(frozen=True, slots=True)
class FileSystemUsage:
    """One file system that the persist directory is spread over.

    Args:
        path: Where it is mounted.
        capacity: Bytes that it can hold.
        used: Bytes that are allocated, by its own word.
        free: Bytes that anybody may still allocate.
        explained: Bytes that the entries found there.
    """

    path: Path
    capacity: int
    used: int
    free: int
    explained: int

    @property
    def unexplained(self) -> int:
        """Bytes used by what is not below the persist directory.

        Also the file system's own tables, and files that are deleted but still open. Negative
        when files vanished during the walk.
        """
        return self.used - self.explained


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """The whole account.

    Args:
        entries: Every part; they add up to what is explained.
        volumes: By name.
        images: By name.
        file_systems: Usually one.
    """

    entries: tuple[UsageEntry, ...]
    volumes: tuple[VolumeShare, ...]
    images: tuple[ImageUsage, ...]
    file_systems: tuple[FileSystemUsage, ...]

    @property
    def size(self) -> int:
        """Allocated bytes of everything below the persist directory."""
        return sum(entry.size for entry in self.entries)
