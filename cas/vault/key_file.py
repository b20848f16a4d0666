"""A key in a file that somebody else protects, for development; :mod:`cas.vault.provider`."""

__all__ = ["KeyFileProvider", "read_key_file"]

import os
import stat
from pathlib import Path

from cas.errors import DeniedError, KeyMismatchError, SizeMismatchError
from cas.fsops.secrets import Secret
from cas.fsops.translation import translated
from cas.model.vault_settings import ProviderName
from cas.vault.key import KEY_BYTES
from cas.vault.sealed_key import KeyFileSealing, Sealing


class KeyFileProvider:
    """Takes the key from one file, whatever key was made before.

    Args:
        path: The file of exactly 32 bytes, readable for its owner only.
    """

    name = ProviderName.KEY_FILE

    def __init__(self, path: Path) -> None:
        self._path = path

    def new_key(self) -> Secret:
        """The key of the file.

        Raises:
            KeyMismatchError: The file has another length.
            SourceNotFoundError: It does not exist.
            DeniedError: Others may read it.
        """
        return read_key_file(self._path)

    def seal(self, key: Secret) -> KeyFileSealing:
        """Note where the key lies; the file must hold this very key.

        Raises:
            KeyMismatchError: It holds another one.
            SourceNotFoundError: It does not exist.
            DeniedError: Others may read it.
        """
        with read_key_file(self._path) as found:
            if found.view != key.view:
                raise KeyMismatchError(
                    f"key file {str(self._path)!r} holds another key than the vault's; put the "
                    "vault's key there first",
                    path=self._path,
                )
        return KeyFileSealing(path=str(self._path))

    def unseal(self, sealing: Sealing) -> Secret:
        """Read the key.

        Raises:
            KeyMismatchError: The file has another length.
            SourceNotFoundError: It does not exist.
            DeniedError: Others may read it.
        """
        del sealing  # the configuration says where the file is now
        return read_key_file(self._path)

    def changed(self, sealing: Sealing) -> tuple[int, ...]:
        """Files have no registers."""
        del sealing
        return ()


def read_key_file(path: Path) -> Secret:
    """Read a key from a file that only its owner can read.

    Raises:
        KeyMismatchError: It has another length.
        SourceNotFoundError: It does not exist.
        DeniedError: Others may read it.
        StorageError: A system call failed.
    """
    with translated("read", path, source=True):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise DeniedError(
                f"key file {str(path)!r} can be read by others (mode {mode:04o}); chmod 0600",
                path=path,
            )
        return Secret.read_from(descriptor, KEY_BYTES, what=f"key file {str(path)!r}")
    except SizeMismatchError as error:
        raise KeyMismatchError(error.message, path=path) from error
    finally:
        os.close(descriptor)
