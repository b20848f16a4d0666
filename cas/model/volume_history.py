"""How a volume's layers change: from one record to the next, without a look at containerd.

The record says what is to be, so writing it is the one moment at which an operation has happened;
containerd is brought to it afterwards. Keys are numbered and never used again, hence a key that
exists is what the record means.
"""

__all__ = [
    "MAX_FROZEN_LAYERS",
    "find_snapshot",
    "forget",
    "freeze",
    "mergeable",
    "roll_back",
    "take_out",
    "top_of",
]

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from cas.errors import AlreadyExistsError, LimitExceededError, VolumeSnapshotNotFoundError
from cas.model.volume_layers import FrozenLayer, VolumeHistory
from cas.model.volume_record import VolumeRecord

MAX_FROZEN_LAYERS = 360
"""Of one volume: with the 127 layers that an image may have below the kernel's limit of 500."""


def top_of(record: VolumeRecord) -> str:
    """Give the committed snapshot that the writable layer should stand on; empty for none."""
    if record.history is not None:
        return record.history.parent
    return "" if record.chain_id is None else str(record.chain_id)


def find_snapshot(record: VolumeRecord, snapshot: str) -> FrozenLayer:
    """Find a snapshot of the volume.

    Raises:
        VolumeSnapshotNotFoundError: It has none of this name.
    """
    for layer in _layers(record):
        if layer.snapshot == snapshot:
            return layer
    names = ", ".join(repr(layer.snapshot) for layer in _layers(record) if layer.snapshot)
    raise VolumeSnapshotNotFoundError(
        f"volume {record.name} has no snapshot {snapshot!r}; it has {names or 'none'}",
        name=record.name,
        snapshot=snapshot,
    )


def freeze(record: VolumeRecord, snapshot: str, *, parent: str, now: datetime) -> VolumeRecord:
    """Freeze the writable layer and put a new one on it.

    Args:
        record: Of the volume.
        snapshot: Name of the snapshot.
        parent: What the writable layer stands on.
        now: The current time.

    Raises:
        AlreadyExistsError: There is a snapshot of this name.
        LimitExceededError: There would be too many layers.
    """
    history = _history(record)
    if any(layer.snapshot == snapshot for layer in history.layers):
        raise AlreadyExistsError(
            f"volume {record.name} has a snapshot {snapshot!r} already", snapshot=snapshot
        )
    if len(history.layers) >= MAX_FROZEN_LAYERS:
        raise LimitExceededError(
            f"volume {record.name} has {len(history.layers)} frozen layers, the most that can be "
            "mounted; remove snapshots of it",
            name=record.name,
            expected=MAX_FROZEN_LAYERS,
            actual=len(history.layers),
        )
    frozen, writable = _keys(record, history.next_number, 2)
    layer = FrozenLayer(frozen, parent, snapshot, now, frozen_from=record.snapshot_key)
    return replace(
        record,
        snapshot_key=writable,
        history=VolumeHistory(
            frozen, (*history.layers, layer), history.next_number + 2, unused=True
        ),
    )


def roll_back(record: VolumeRecord, snapshot: str, *, drop_later: bool) -> VolumeRecord:
    """Put a new writable layer on a snapshot in place of the present one.

    Args:
        record: Of the volume.
        snapshot: Where to.
        drop_later: Also forget the snapshots that were taken after it.

    Raises:
        VolumeSnapshotNotFoundError: There is no such snapshot.
    """
    target = find_snapshot(record, snapshot)
    history = _history(record)
    layers = history.layers
    if drop_later:
        layers = layers[: layers.index(target) + 1]
    (writable,) = _keys(record, history.next_number, 1)
    changed = VolumeHistory(target.key, layers, history.next_number + 1, unused=True)
    return _without_dead_ends(replace(record, snapshot_key=writable, history=changed))


def forget(record: VolumeRecord, snapshot: str) -> VolumeRecord:
    """Take a snapshot's name away; its layer stays while others stand on it.

    Raises:
        VolumeSnapshotNotFoundError: There is no such snapshot.
    """
    target = find_snapshot(record, snapshot)
    history = _history(record)
    layers = tuple(
        replace(layer, snapshot=None) if layer is target else layer for layer in history.layers
    )
    return _without_dead_ends(replace(record, history=replace(history, layers=layers)))


def mergeable(record: VolumeRecord) -> tuple[FrozenLayer, str] | None:
    """Find a nameless layer on which exactly one other stands, and the key of that one.

    One that stands on nothing is left out: on it alone the kernel needs no overlay, and what an
    overlay hides would show.
    """
    history = _history(record)
    children: dict[str, list[str]] = {layer.key: [] for layer in history.layers}
    for key, parent in (
        *((layer.key, layer.parent) for layer in history.layers),
        (record.snapshot_key, history.parent),
    ):
        if parent in children:
            children[parent].append(key)
    for layer in history.layers:
        if layer.snapshot is None and layer.parent and len(children[layer.key]) == 1:
            return layer, children[layer.key][0]
    return None


def take_out(
    record: VolumeRecord, layer: FrozenLayer, directories: Mapping[str, int]
) -> VolumeRecord:
    """Take a layer without files out of the chain: all above it get new keys.

    Args:
        record: Of the volume.
        layer: Of its history.
        directories: Key to number of the snapshotter's directory, of all that stand above.
    """
    history = _history(record)
    number = history.next_number
    renamed = {layer.key: layer.parent}
    layers: list[FrozenLayer] = []
    for each in history.layers:
        if each is layer:
            continue
        if each.parent in renamed:
            (key,) = _keys(record, number, 1)
            number += 1
            renamed[each.key] = key
            each = replace(  # noqa: PLW2901 - the layer in its new place
                each, key=key, parent=renamed[each.parent], moved_from=directories[each.key]
            )
        layers.append(each)
    changed = replace(history, layers=tuple(layers), next_number=number)
    if history.parent not in renamed:
        return replace(record, history=changed)
    (writable,) = _keys(record, number, 1)
    changed = replace(
        changed,
        parent=renamed[history.parent],
        next_number=number + 1,
        moved_from=directories[record.snapshot_key],
        unused=False,
    )
    return replace(record, snapshot_key=writable, history=changed)


def _without_dead_ends(record: VolumeRecord) -> VolumeRecord:
    """Drop nameless layers on which nothing stands any more."""
    history = _history(record)
    uses = Counter((history.parent, *(layer.parent for layer in history.layers)))
    kept: list[FrozenLayer] = []
    for layer in reversed(history.layers):  # children first
        if layer.snapshot is None and not uses[layer.key]:
            uses[layer.parent] -= 1
        else:
            kept.append(layer)
    return replace(record, history=replace(history, layers=tuple(reversed(kept))))


def _history(record: VolumeRecord) -> VolumeHistory:
    return record.history or VolumeHistory(top_of(record), (), 1)


def _layers(record: VolumeRecord) -> Iterable[FrozenLayer]:
    return _history(record).layers


def _keys(record: VolumeRecord, first: int, count: int) -> list[str]:
    return [f"{record.name}/{number}" for number in range(first, first + count)]
