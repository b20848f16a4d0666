"""Gives back the space of layers that no snapshot of a volume needs any more.

A frozen layer with others on it cannot be removed from containerd. If exactly one stands on it,
its files are moved up into that one, and those above get new snapshots on what was below it,
which take over their directories: work by the number of names and layers, not by their size.
With several on it a layer stays, since each of them needs it; it goes when one is left.
"""

__all__ = ["Compaction"]

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cas.errors import DeniedError
from cas.fsops.layer_merge import can_merge, merge_layer
from cas.fsops.overlay import Overlay
from cas.model.records import Mount
from cas.model.volume_history import mergeable, take_out
from cas.model.volume_layers import FrozenLayer
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.leasing import Leasing
from cas.volumes.own_snapshots import labels_of
from cas.volumes.records import replace_record
from cas.volumes.settling import Settling

_LOGGER = logging.getLogger(__name__)

_LOOKING = "/looking"
"""Added to the key of a layer while its directory is asked for."""
_HIDDEN = "hidden"


class Compaction:
    """Shortens the chains of volumes.

    Callers hold the volume's lock; it is settled and mounted nowhere.

    Args:
        backing: The store.
        leasing: Makes leases.
        settling: Makes snapshots.
    """

    def __init__(self, backing: Backing, leasing: Leasing, settling: Settling) -> None:
        self._backing = backing
        self._leasing = leasing
        self._settling = settling

    def compact(self, record: VolumeRecord) -> VolumeRecord:
        """Merge what can be merged; idempotent, and a repetition goes on after a failure.

        Returns:
            The volume's record as it is now.

        Raises:
            NoSpaceError: A directory cannot grow.
            CorruptVolumeError: A snapshot of the volume is missing.
        """
        record = self._with_files_moved(record)
        while (found := mergeable(record)) is not None:
            layer, above = found
            directories = self._directories(record)
            if not {layer.key, above} <= directories.keys() or not can_merge(directories[above]):
                _LOGGER.info("layer stays in the chain volume=%s key=%s", record.name, layer.key)
                break
            below = directories[layer.key]
            try:
                merge_layer(below, directories[above], below.parent / _HIDDEN)
            except DeniedError as error:  # such as a file that somebody made immutable
                _LOGGER.warning("layer stays volume=%s error=%s", record.name, error)
                break
            record = self._take_out(record, layer, directories)
        return record

    def _take_out(
        self, record: VolumeRecord, layer: FrozenLayer, directories: dict[str, Path]
    ) -> VolumeRecord:
        numbers = {key: int(path.parent.name) for key, path in directories.items()}
        changed = take_out(record, layer, numbers)
        replace_record(self._backing.layout.volume(record.name), changed)
        self._settling.settle(changed)
        _LOGGER.info("layer merged volume=%s key=%s", record.name, layer.key)
        return self._with_files_moved(changed)

    def _with_files_moved(self, record: VolumeRecord) -> VolumeRecord:
        """Note that the writable layer has its files, so that nobody need look again."""
        history = record.history
        if history is None or history.moved_from is None:
            return record
        changed = replace(record, history=replace(history, moved_from=None))
        replace_record(self._backing.layout.volume(record.name), changed)
        return changed

    def _directories(self, record: VolumeRecord) -> dict[str, Path]:
        """Give the directories of the volume's layers, as far as they can be reached."""
        layers = {layer.key: layer for layer in record.history.layers} if record.history else {}
        mounts = self._backing.snapshots.mounts(record.snapshot_key)
        found = dict(zip(_chain(record, layers), _layer_paths(mounts), strict=False))
        with self._leasing.hold("look") as lease:
            for key in reversed(layers):
                if key in found:
                    continue
                view = f"{key}{_LOOKING}"
                self._backing.snapshots.remove(view)
                labels = labels_of(self._backing, record)
                mounts = self._backing.snapshots.view(view, key, lease.id, labels)
                found |= zip(_below(key, layers), _layer_paths(mounts), strict=False)
                self._backing.snapshots.remove(view)
        return {key: path for key, path in found.items() if path.is_dir()}


def _chain(record: VolumeRecord, layers: dict[str, FrozenLayer]) -> Iterator[str]:
    yield record.snapshot_key
    if record.history is not None:
        yield from _below(record.history.parent, layers)


def _below(key: str, layers: dict[str, FrozenLayer]) -> Iterator[str]:
    while key in layers:
        yield key
        key = layers[key].parent


def _layer_paths(mounts: list[Mount]) -> list[Path]:
    """Give the directories of a mount's layers, the topmost first; none of other kinds."""
    if len(mounts) != 1:
        return []
    mount = mounts[0]
    if mount.type == "bind":
        return [Path(mount.source)]
    if mount.type != "overlay" or mount.option("lowerdir") is None:
        return []
    overlay = Overlay.parse(mount.options, 0)
    top = [] if overlay.upper is None else [overlay.upper]
    return [Path(path) for path in (*top, *overlay.lower)]
