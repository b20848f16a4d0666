"""The record of a disk volume: a small file in a hidden directory beside the disks.

It is there, durable, before the disk has its name, and goes after the name has gone, so that a disk
without a record is one that we did not make. Not an extended attribute: those stay readable where
the vault is encrypted, not every file system has them, and not every tool copies them. Reading
trusts nothing: whoever can write there may write anything.
"""

__all__ = ["read_disk_record", "remove_disk_record", "write_disk_record"]

from datetime import datetime

import msgspec

from cas.errors import CorruptVolumeError, InvalidNameError
from cas.fsops.durable import make_directory, remove_file, write_file
from cas.fsops.reading import regular_file
from cas.model.digest import Digest
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import FORMAT_VERSION, DiskOrigin, DiskRecord
from cas.model.layout import DiskPaths
from cas.model.volume_name import VolumeName

_MAX_BYTES = 64 * 1024
_DIRECTORY_MODE = 0o700
_FILE_MODE = 0o600


class _Origin(msgspec.Struct, kw_only=True):
    image: str
    manifest_digest: str
    blob_digest: str


class _Document(msgspec.Struct, kw_only=True):
    """The record as it is written; unknown keys of later releases are ignored."""

    format_version: int
    name: str
    origin: _Origin | None
    format: DiskFormat
    size: int | None
    read_only: bool
    created: datetime


def write_disk_record(paths: DiskPaths, record: DiskRecord) -> None:
    """Write the record, durably; one that a killed preparation left is replaced.

    Raises:
        NoSpaceError: No room.
        StorageError: Any other failed system call.
    """
    make_directory(paths.record.parent, mode=_DIRECTORY_MODE)
    write_file(paths.record, _encoded(record), mode=_FILE_MODE)


def remove_disk_record(paths: DiskPaths) -> bool:
    """Remove the record, durably; gives whether it was there. Idempotent."""
    if not paths.record.parent.is_dir():
        return False
    return remove_file(paths.record)


def read_disk_record(paths: DiskPaths) -> DiskRecord | None:
    """Read the record strictly; None for a disk that we did not make.

    Raises:
        CorruptVolumeError: It is too large, malformed, of another volume or of a later format.
    """
    try:
        with regular_file(paths.record) as file:
            raw = file.read(_MAX_BYTES + 1)
        document = msgspec.json.decode(raw[:_MAX_BYTES], type=_Document)
        record = _record(document)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _corrupt(paths, f"it cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, InvalidNameError, UnicodeDecodeError) as error:
        raise _corrupt(paths, f"it is malformed: {error}") from error
    if document.format_version > FORMAT_VERSION:
        raise _corrupt(paths, f"format {document.format_version} is newer than {FORMAT_VERSION}")
    if record.name != paths.name:
        raise _corrupt(paths, f"it belongs to volume {record.name}")
    return record


def _encoded(record: DiskRecord) -> bytes:
    origin = record.origin
    document = _Document(
        format_version=FORMAT_VERSION,
        name=str(record.name),
        origin=None
        if origin is None
        else _Origin(
            image=origin.image,
            manifest_digest=str(origin.manifest_digest),
            blob_digest=str(origin.blob_digest),
        ),
        format=record.format,
        size=record.size,
        read_only=record.read_only,
        created=record.created,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=4) + b"\n"


def _record(document: _Document) -> DiskRecord:
    if document.created.tzinfo is None:
        raise InvalidNameError("the time has no zone")
    origin = document.origin
    return DiskRecord(
        name=VolumeName.parse(document.name),
        origin=None
        if origin is None
        else DiskOrigin(
            origin.image, Digest.parse(origin.manifest_digest), Digest.parse(origin.blob_digest)
        ),
        format=document.format,
        size=document.size,
        read_only=document.read_only,
        created=document.created,
    )


def _corrupt(paths: DiskPaths, reason: str) -> CorruptVolumeError:
    return CorruptVolumeError(
        f"volume {paths.name} cannot be used because of its record {str(paths.record)!r}: "
        f"{reason}; restore the file, or remove it if nobody needs to know what the volume was "
        "made from",
        name=paths.name,
        path=paths.record,
    )
