"""What a container volume remembers about its making: the contents of ``volume.json``."""

__all__ = ["FORMAT_VERSION", "VolumeRecord"]

from dataclasses import dataclass
from datetime import datetime

from cas.model.digest import ChainID, Digest
from cas.model.volume_layers import VolumeHistory
from cas.model.volume_name import VolumeName

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A container volume.

    Args:
        name: Its name.
        image: The reference it was prepared from, canonical; empty if older software made it.
        root_digest: What the reference pointed to then: an index or a manifest; None where older
            software made it and did not say.
        manifest_digest: The manifest chosen for this platform; None if older software made it.
        chain_id: Name of the image's top snapshot; None for an image without layers, or if older
            software made it.
        snapshot_key: Key of the writable (or view) snapshot; the volume name unless converted.
        snapshotter: Snapshotter plugin that holds it.
        read_only: Prepared as a view.
        created: Aware UTC.
        history: Its layers, once a snapshot of it was taken.
    """

    name: VolumeName
    image: str
    root_digest: Digest | None
    manifest_digest: Digest | None
    chain_id: ChainID | None
    snapshot_key: str
    snapshotter: str
    read_only: bool
    created: datetime
    history: VolumeHistory | None = None

    @property
    def snapshot_keys(self) -> tuple[str, ...]:
        """Keys of every snapshot of its own that containerd must keep, the writable one first."""
        frozen = () if self.history is None else self.history.layers
        return (self.snapshot_key, *(layer.key for layer in frozen))

    @property
    def converted(self) -> bool:
        """Whether older software made it, so that little is known of its image."""
        return not self.image
