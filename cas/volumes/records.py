"""The files in a container volume's directory: ``volume.json`` and ``image-config.json``.

They are written before the volume gets its name. Only snapshots and rollbacks replace
``volume.json`` later, whole and in one step. Reading trusts nothing: whoever can write there may
write anything.
"""

__all__ = [
    "encode_files",
    "encode_record",
    "iter_records",
    "read_record",
    "read_snapshot_key",
    "replace_record",
]

import logging
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from cas.errors import CorruptVolumeError, InvalidNameError, StorageError
from cas.fsops.durable import write_file
from cas.fsops.reading import regular_file
from cas.model.digest import ChainID, Digest
from cas.model.layout import Layout
from cas.model.settings import DEFAULT_SNAPSHOTTER
from cas.model.volume_layers import FrozenLayer, VolumeHistory, check_snapshot_name
from cas.model.volume_name import VolumeName
from cas.model.volume_record import FORMAT_VERSION, VolumeRecord
from cas.volumes.scan import iter_names

_LOGGER = logging.getLogger(__name__)

_MAX_RECORD_BYTES = 256 * 1024
_MAX_KEY_BYTES = 4096
_RECORD = "volume.json"
_CONFIG = "image-config.json"
_SNAPSHOT_KEY = "snapshotid.txt"
_OLD_KEY = re.compile(r"([0-9a-fA-F]{64})-", re.ASCII)
"""Keys of snapshots that older software made begin with the digest of the image."""


_Number = Annotated[int, msgspec.Meta(ge=0)]
_Key = Annotated[str, msgspec.Meta(min_length=1)]


class _Layer(msgspec.Struct, kw_only=True):
    """A frozen layer; fields as in :class:`~cas.model.volume_layers.FrozenLayer`."""

    key: _Key
    parent: str
    snapshot: str | None
    created: Annotated[datetime, msgspec.Meta(tz=True)]
    frozen_from: _Key
    moved_from: _Number | None


class _History(msgspec.Struct, kw_only=True):
    """Fields as in :class:`~cas.model.volume_layers.VolumeHistory`."""

    parent: str
    layers: list[_Layer]
    next_number: _Number
    moved_from: _Number | None
    unused: bool


class _Document(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``volume.json`` as it is written; unknown keys of later releases are ignored."""

    format_version: int
    name: str
    image: str
    root_digest: str | None
    manifest_digest: str | None
    chain_id: str | None
    snapshot_key: str
    snapshotter: str
    read_only: bool
    created: datetime
    history: _History | None = None


def encode_record(record: VolumeRecord) -> bytes:
    """Give the bytes of ``volume.json``."""
    document = _Document(
        format_version=FORMAT_VERSION,
        name=str(record.name),
        image=record.image,
        root_digest=_text(record.root_digest),
        manifest_digest=_text(record.manifest_digest),
        chain_id=None if record.chain_id is None else str(record.chain_id),
        snapshot_key=record.snapshot_key,
        snapshotter=record.snapshotter,
        read_only=record.read_only,
        created=record.created,
        history=None if record.history is None else _history_document(record.history),
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=4) + b"\n"


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest.parse(text)


def _history_document(history: VolumeHistory) -> _History:
    return _History(
        parent=history.parent,
        layers=[
            _Layer(
                key=layer.key,
                parent=layer.parent,
                snapshot=layer.snapshot,
                created=layer.created,
                frozen_from=layer.frozen_from,
                moved_from=layer.moved_from,
            )
            for layer in history.layers
        ],
        next_number=history.next_number,
        moved_from=history.moved_from,
        unused=history.unused,
    )


def replace_record(directory: Path, record: VolumeRecord) -> None:
    """Replace ``volume.json``, durably and in one step.

    Raises:
        NoSpaceError: No room; the old one is there.
        StorageError: A system call failed; the old one is there.
    """
    write_file(directory / _RECORD, encode_record(record), mode=0o644)


def encode_files(record: VolumeRecord, config: bytes) -> dict[str, bytes]:
    """Give names and contents of both files.

    Args:
        record: Of the volume.
        config: The image config as it is in the store; only its white space is changed.
    """
    return {
        _CONFIG: msgspec.json.format(config, indent=4) + b"\n",
        _RECORD: encode_record(record),
    }


def read_record(directory: Path, name: VolumeName) -> VolumeRecord:
    """Read ``volume.json`` strictly; of a converted volume, which has none, ``snapshotid.txt``.

    Args:
        directory: The volume's directory.
        name: Its name, which the record must repeat.

    Raises:
        CorruptVolumeError: The file is missing, too large, malformed, of another volume or of a
            later format.
    """
    path = directory / _RECORD
    if (directory / _SNAPSHOT_KEY).is_file() and not os.path.lexists(path):
        return _converted_record(directory, name)
    try:
        document = msgspec.json.decode(_read(path, _MAX_RECORD_BYTES), type=_Document)
        record = _record(document)
    except FileNotFoundError as error:
        raise _corrupt(name, path, "it is missing") from error
    except OSError as error:
        raise _corrupt(name, path, f"it cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, InvalidNameError, UnicodeDecodeError) as error:
        raise _corrupt(name, path, f"it is malformed: {error}") from error
    if document.format_version > FORMAT_VERSION:
        reason = f"format {document.format_version} is newer than {FORMAT_VERSION}"
        raise _corrupt(name, path, reason)
    if record.name != name:
        raise _corrupt(name, path, f"it belongs to volume {record.name}")
    return record


def _record(document: _Document) -> VolumeRecord:
    if document.created.tzinfo is None or not document.snapshot_key:
        message = "the time has no zone, or the snapshot key is empty"
        raise InvalidNameError(message)
    chain_id = document.chain_id
    return VolumeRecord(
        name=VolumeName.parse(document.name),
        image=document.image,
        root_digest=_digest(document.root_digest),
        manifest_digest=_digest(document.manifest_digest),
        chain_id=None if chain_id is None else ChainID.parse(chain_id),
        snapshot_key=document.snapshot_key,
        snapshotter=document.snapshotter,
        read_only=document.read_only,
        created=document.created,
        history=None if document.history is None else _history(document.history),
    )


def _history(document: _History) -> VolumeHistory:
    layers = tuple(
        FrozenLayer(
            key=layer.key,
            parent=layer.parent,
            snapshot=None if layer.snapshot is None else check_snapshot_name(layer.snapshot),
            created=layer.created,
            frozen_from=layer.frozen_from,
            moved_from=layer.moved_from,
        )
        for layer in document.layers
    )
    return VolumeHistory(
        parent=document.parent,
        layers=layers,
        next_number=document.next_number,
        moved_from=document.moved_from,
        unused=document.unused,
    )


def _converted_record(directory: Path, name: VolumeName) -> VolumeRecord:
    path = directory / _SNAPSHOT_KEY
    try:
        key = _read(path, _MAX_KEY_BYTES).decode().strip()
        created = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, UnicodeDecodeError) as error:
        raise _corrupt(name, path, f"it cannot be read: {error}") from error
    if not key:
        raise _corrupt(name, path, "it is empty")
    image = _OLD_KEY.match(key)
    return VolumeRecord(
        name=name,
        image="",
        root_digest=None if image is None else Digest.parse_foreign(image[1]),
        manifest_digest=None,
        chain_id=None,
        snapshot_key=key,
        snapshotter=DEFAULT_SNAPSHOTTER,
        read_only=False,
        created=created,
    )


def read_snapshot_key(directory: Path, name: VolumeName) -> str:
    """Tell which snapshot a volume directory refers to, however damaged it is.

    Returns:
        What the record says; without a readable one ``snapshotid.txt``; without that the name.
    """
    try:
        return read_record(directory, name).snapshot_key
    except CorruptVolumeError:
        pass
    try:
        return _read(directory / _SNAPSHOT_KEY, _MAX_KEY_BYTES).decode().strip() or str(name)
    except (OSError, UnicodeDecodeError, CorruptVolumeError):
        return str(name)


def _read(path: Path, limit: int) -> bytes:
    with regular_file(path) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        message = f"file {str(path)!r} is larger than {limit} bytes, so it is not ours; look at it"
        raise CorruptVolumeError(message, path=path)
    return raw


def _corrupt(name: VolumeName, path: Path, reason: str) -> CorruptVolumeError:
    return CorruptVolumeError(
        f"volume {name} cannot be used because of its record {str(path)!r}: {reason}; restore the "
        "file, or remove the volume and prepare it again",
        name=name,
        path=path,
    )


def iter_records(layout: Layout) -> Iterator[VolumeRecord]:
    """Stream the records of all container volumes, by name; speaks to no containerd.

    A volume whose record cannot be read is left out with a warning: listing and checking report
    it, and its snapshot is rooted and so outlives every collection.
    """
    for name in iter_names(layout):
        try:
            yield read_record(layout.volume(name), name)
        except (CorruptVolumeError, StorageError) as error:
            _LOGGER.warning("record of volume unreadable volume=%s error=%s", name, error)
