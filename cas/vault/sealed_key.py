"""The file beside each vault that says how its key is had again; durable before it is needed.

It lies outside of the vault, holds no key in clear, and is replaced in one step: whoever is killed
on the way leaves the old one or the new one.
"""

__all__ = [
    "KeyFileSealing",
    "PassphraseSealing",
    "SealedKey",
    "Sealing",
    "TpmSealing",
    "read_sealed_key",
    "write_sealed_key",
]

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cas.errors import SealedKeyError
from cas.fsops.durable import make_directory, remove_temporaries, write_file
from cas.fsops.reading import regular_file
from cas.fsops.translation import translated

_MAX_BYTES = 64 * 1024
_Hex64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Blob = Annotated[bytes, msgspec.Meta(min_length=1, max_length=4096)]


class _Sealing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="provider"):
    """What a provider needs to give the key again."""


class TpmSealing(_Sealing, frozen=True, tag="tpm"):
    """A key sealed in a TPM.

    Args:
        parent: Name of the storage key, which tells TPMs apart.
        public: TPM2B_PUBLIC of the sealed object.
        private: TPM2B_PRIVATE, which this TPM alone can read.
        pcrs: Register to its value of bank sha256 when it was sealed; empty without a PCR policy.
    """

    parent: str
    public: _Blob
    private: _Blob
    pcrs: dict[int, _Hex64]


class KeyFileSealing(_Sealing, frozen=True, tag="key-file"):
    """A key that lies in a file of somebody else.

    Args:
        path: That file when the vault was made; the configuration may name another.
    """

    path: str


class PassphraseSealing(_Sealing, frozen=True, tag="passphrase"):
    """A key encrypted by AES-256-GCM under scrypt of a passphrase.

    Args:
        salt: Of scrypt.
        cost: scrypt's n, a power of two.
        nonce: Of AES-GCM.
        wrapped: The key, encrypted, with its tag.
    """

    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=64)]
    cost: Annotated[int, msgspec.Meta(ge=2**14, le=2**20)]
    nonce: Annotated[bytes, msgspec.Meta(min_length=12, max_length=12)]
    wrapped: Annotated[bytes, msgspec.Meta(min_length=48, max_length=48)]


Sealing = TpmSealing | KeyFileSealing | PassphraseSealing
"""What one of the providers needs to give the key again."""


class SealedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file.

    Args:
        format_version: 1.
        key_digest: sha256 of the key, in hex.
        identifier: The kernel's name of the master key, in hex.
        sealed: When, aware.
        sealing: How the key is had again.
    """

    format_version: Literal[1]
    key_digest: _Hex64
    identifier: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    sealed: datetime
    sealing: Sealing


def read_sealed_key(path: Path) -> SealedKey | None:
    """Read the file of a vault; None if there is none.

    Raises:
        SealedKeyError: It is truncated, or not what this version writes.
        DeniedError: The process may not read it.
        StorageError: A system call failed.
    """
    with translated("read", path):
        try:
            with regular_file(path) as file:
                raw = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
    try:
        if len(raw) > _MAX_BYTES:
            raise msgspec.ValidationError("larger than 64 KiB")
        return msgspec.json.decode(raw, type=SealedKey)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SealedKeyError(
            f"the sealed key {str(path)!r} is damaged: {error}; open the vault by "
            "`cas vault recover` with the escrowed key, which seals it anew",
            path=path,
        ) from error


def write_sealed_key(path: Path, sealed: SealedKey) -> None:
    """Put a sealing in the place of the one before, durably and in one step.

    Raises:
        NoSpaceError: No room; the one before stays.
        DeniedError: The process may not write there.
        StorageError: A system call failed.
    """
    make_directory(path.parent, mode=0o700)
    remove_temporaries(path.parent)
    raw = msgspec.json.format(msgspec.json.encode(sealed), indent=2)
    write_file(path, raw + b"\n", mode=0o600)
