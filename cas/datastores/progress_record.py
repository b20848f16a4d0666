"""What is remembered of a transfer beside its file: how many bytes may be trusted, and of what.

Written whole and in one step, with a checksum over everything in it, and only after the bytes it
speaks of are on the device. A record that does not add up is no record.
"""

__all__ = ["ProgressRecord", "read_record", "write_record"]

import hashlib
import os
from pathlib import Path

import msgspec

from cas.datastores.port import Validator
from cas.fsops.durable import write_file
from cas.fsops.translation import translated

_VERSION = 1
_MAX_RECORD_BYTES = 64 * 1024


class ProgressRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """State of a transfer.

    Args:
        source: Whose object it is; see :func:`cas.datastores.fetch.fetch`.
        digest: Claimed digest of the object, canonical.
        validator: Of the object as it was when its first byte was read.
        size: Bytes of the whole object; None if unknown.
        synced: Bytes of the file that are on the device.
    """

    source: str
    digest: str
    validator: Validator
    size: int | None
    synced: int


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    sha256: str
    record: msgspec.Raw


def write_record(path: Path, record: ProgressRecord) -> None:
    """Write a record durably, in place of an older one.

    Raises:
        NoSpaceError: No room; the older one is still there.
        StorageError: Any other failed system call.
    """
    body = msgspec.json.encode(record)
    envelope = _Envelope(_VERSION, hashlib.sha256(body).hexdigest(), msgspec.Raw(body))
    write_file(path, msgspec.json.encode(envelope))


def read_record(path: Path) -> ProgressRecord | None:
    """Read a record; None if there is none, or none that can be trusted.

    Raises:
        StorageError: It is there and cannot be read.
    """
    with translated("read", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            data = os.read(descriptor, _MAX_RECORD_BYTES + 1)
        finally:
            os.close(descriptor)
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        body = bytes(envelope.record)
        if envelope.version != _VERSION or hashlib.sha256(body).hexdigest() != envelope.sha256:
            return None
        record = msgspec.json.decode(body, type=ProgressRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return record if record.synced >= 0 and (record.size or 0) >= 0 else None
