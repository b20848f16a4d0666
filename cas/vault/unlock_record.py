"""How a vault was opened in this boot: told by ``status``, forgotten when it is locked."""

__all__ = ["UnlockMethod", "forget_unlock", "read_unlock", "record_unlock"]

from enum import StrEnum
from pathlib import Path

import msgspec

from cas.fsops import processes
from cas.fsops.durable import make_directory, remove_file, write_file
from cas.fsops.reading import regular_file
from cas.fsops.translation import translated

_MAX_BYTES = 4096


class UnlockMethod(StrEnum):
    """Where the key came from."""

    NONE = "none"
    """It is not open, or nobody noted how it was opened."""
    TPM = "tpm"
    KEY_FILE = "key-file"
    PASSPHRASE = "passphrase"  # noqa: S105 - the name of one, not one
    RECOVERED = "recovered"
    """The escrowed key was given."""


class _Record(msgspec.Struct, frozen=True):
    boot_id: str
    method: UnlockMethod


def record_unlock(path: Path, method: UnlockMethod) -> None:
    """Note how a vault was opened just now.

    Raises:
        StorageError: It cannot be written.
    """
    record = _Record(processes.current().boot_id, method)
    make_directory(path.parent, mode=0o700, parents=True)
    write_file(path, msgspec.json.encode(record), mode=0o600)


def read_unlock(path: Path) -> UnlockMethod:
    """Tell how an open vault was opened; a note of an earlier boot, or a broken one, says nothing.

    Raises:
        StorageError: It cannot be read.
    """
    with translated("read", path):
        try:
            with regular_file(path) as file:
                record = msgspec.json.decode(file.read(_MAX_BYTES), type=_Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return UnlockMethod.NONE
    if record.boot_id != processes.current().boot_id:
        return UnlockMethod.NONE
    return record.method


def forget_unlock(path: Path) -> None:
    """Remove the note. Idempotent.

    Raises:
        StorageError: It cannot be removed.
    """
    remove_file(path)
