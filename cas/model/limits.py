"""Every limit that input from outside meets, as named constants with units.

A limit that an installation may want to change is a field of :class:`Limits`; the others are
properties of formats and protocols.
"""

__all__ = ["CHUNK_BYTES", "SMALL_BLOB_BYTES", "WRITE_MESSAGE_BYTES", "Limits"]

from dataclasses import dataclass

_MIB = 1024 * 1024
_GIB = 1024 * _MIB

CHUNK_BYTES = _MIB
"""Unit of every copy: large enough for full speed, small enough for four in flight."""

WRITE_MESSAGE_BYTES = _MIB
"""Data per gRPC write message; containerd takes 16 MiB, the neighbours 4 MiB."""

SMALL_BLOB_BYTES = _MIB
"""Up to here a blob travels in one commit message."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits against hostile or broken input."""

    document_bytes: int = 4 * _MIB
    """Manifest, index, config or archive document; registries commonly stop here too."""
    index_depth: int = 4
    """Levels of indexes above a manifest."""
    descriptors: int = 4096
    """Children of one document, and documents of one image."""
    layers: int = 500
    """Layers of an image; the overlay file system mounts no more."""
    archive_members: int = 100_000
    """Members of an image archive."""
    blob_bytes: int = 4096 * _GIB
    """One blob."""
    layer_expansion: int = 200
    """Uncompressed bytes per compressed byte of a layer, above ``layer_expansion_floor_bytes``."""
    layer_expansion_floor_bytes: int = 1 * _GIB
    """Layers that unpack to no more than this are never called bombs."""
    disk_bytes: int = 64 * 1024 * _GIB
    """The disk in a disk image, and a disk volume."""
    thin_disks: bool = False
    """Disk volumes may together become larger than their file system."""
    verify_disks: bool = False
    """Blobs are read and compared with their digests before they are copied to disks."""
    min_free_bytes: int = 64 * _MIB
    """Room that new work always leaves on the file system."""
