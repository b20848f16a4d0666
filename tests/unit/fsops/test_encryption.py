"""Plain, unlocked and locked directories, on a real encrypted file system."""

import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import SourceNotFoundError, StorageError, VaultLockedError
from cas.fsops.durable import make_directory, publish, write_file
from cas.fsops.encryption import EncryptionState, encryption_state, policy_identifier
from cas.fsops.inode import ExclusiveInode, StagedInode
from tests.unit.fsops.conftest import LoopFileSystem, entries

MakeExt4 = Callable[..., LoopFileSystem]
ADD_KEY = 0xC0506617
REMOVE_KEY = 0xC0406618
SET_POLICY = 0x800C6613
KEY = bytes(range(64))


class Vault:
    """An fscrypt directory on a file system of its own."""

    def __init__(self, disk: LoopFileSystem) -> None:
        self.path = disk.path / "vault"
        self.path.mkdir()
        self._root = disk.path
        self._identifier = self.unlock()
        self._ioctl(
            self.path,
            SET_POLICY,
            bytearray(struct.pack("=BBBB4s16s", 2, 1, 4, 3, b"", self._identifier)),
        )

    def unlock(self) -> bytes:
        """Give the kernel the key."""
        request = struct.pack("=II32s", 2, 0, b"") + struct.pack("=II", len(KEY), 0)
        answer = self._ioctl(self._root, ADD_KEY, bytearray(request + bytes(32) + KEY))
        return bytes(answer[8:24])

    def lock(self) -> None:
        """Take the key away."""
        request = struct.pack("=II32s", 2, 0, self._identifier) + bytes(24)
        self._ioctl(self._root, REMOVE_KEY, bytearray(request))

    def _ioctl(self, path: Path, number: int, buffer: bytearray) -> bytearray:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, number, buffer, True)
        finally:
            os.close(descriptor)
        return buffer


@pytest.fixture
def vault(ext4: MakeExt4) -> Vault:
    """An unlocked vault."""
    return Vault(ext4(16, "-O", "encrypt"))


def test_state_follows_the_key(vault: Vault) -> None:
    """Unlocked while the key is there, locked when it is gone, and again."""
    assert encryption_state(vault.path) is EncryptionState.ENCRYPTED_UNLOCKED
    make_directory(vault.path / "below", mode=0o700)
    assert encryption_state(vault.path / "below") is EncryptionState.ENCRYPTED_UNLOCKED
    vault.lock()
    assert encryption_state(vault.path) is EncryptionState.ENCRYPTED_LOCKED
    vault.unlock()
    assert encryption_state(vault.path / "below") is EncryptionState.ENCRYPTED_UNLOCKED


def test_half_locked_vault_counts_as_locked(vault: Vault) -> None:
    """An open file keeps the old ones readable, but new ones are refused."""
    write_file(vault.path / "f", b"x")
    with (vault.path / "f").open("rb"):
        vault.lock()
        assert encryption_state(vault.path) is EncryptionState.ENCRYPTED_LOCKED
        with pytest.raises(VaultLockedError):
            write_file(vault.path / "g", b"y")
    vault.lock()
    assert encryption_state(vault.path) is EncryptionState.ENCRYPTED_LOCKED


def test_plain_directories_are_plain_on_every_file_system(
    vault: Vault, ext4: MakeExt4, tiny: Path, tmp_path: Path
) -> None:
    """Beside a vault, on a file system without the feature, on tmpfs and on proc."""
    plain = ext4(16, "-O", "^encrypt").path
    for path in (vault.path.parent, plain, tiny, tmp_path, Path("/proc")):
        assert encryption_state(path) is EncryptionState.PLAIN


def test_missing_directory_is_source_not_found(tmp_path: Path) -> None:
    """Absent is not plain."""
    with pytest.raises(SourceNotFoundError):
        encryption_state(tmp_path / "missing")
    (tmp_path / "f").touch()
    with pytest.raises(StorageError):
        encryption_state(tmp_path / "f")


def test_nothing_is_written_into_a_locked_vault(vault: Vault) -> None:
    """Every way to write says that the vault is locked."""
    outside = vault.path.parent / "f"
    write_file(outside, b"x")
    vault.lock()
    before = entries(vault.path)
    with pytest.raises(VaultLockedError):
        write_file(vault.path / "f", b"x")
    with pytest.raises(VaultLockedError):
        make_directory(vault.path / "d", mode=0o700)
    with pytest.raises(VaultLockedError):
        StagedInode.anonymous(vault.path)
    with pytest.raises(VaultLockedError):
        StagedInode.open_partial(vault.path / "p")
    assert entries(vault.path) == before


def test_staged_file_lives_its_life_in_a_vault(vault: Vault) -> None:
    """Encryption changes nothing for the staged way."""
    make_directory(vault.path / "stage", mode=0o700)
    make_directory(vault.path / "blobs", mode=0o700)
    with StagedInode.anonymous(vault.path / "stage") as staged:
        staged.reserve(1 << 16)
        staged.write(b"secret")
        staged.seal()
        assert staged.link(vault.path / "blobs" / "b")
    assert (vault.path / "blobs" / "b").read_bytes() == b"secret"


@pytest.mark.parametrize("into", [True, False])
def test_file_is_not_taken_across_the_border_of_encryption(vault: Vault, into: bool) -> None:
    """Into the vault the kernel refuses; out of it the kernel would not, so we do."""
    plain = vault.path.parent / "plain"
    plain.mkdir()
    source, target = (plain, vault.path) if into else (vault.path, plain)
    write_file(source / "f", b"x")
    assert ExclusiveInode.take(source / "f", target) is None
    within = ExclusiveInode.take(source / "f", source)
    assert within is not None
    within.close()


def test_publish_into_a_vault_says_what_is_in_the_way(vault: Vault) -> None:
    """The kernel's answer is that of two file systems; the advice names the key."""
    write_file(vault.path.parent / "f", b"x")
    with pytest.raises(StorageError, match="one key"):
        publish(vault.path.parent / "f", vault.path / "f")


def test_policy_identifier_is_the_keys_and_none_for_plain(vault: Vault) -> None:
    """Files carry the policy of their directory."""
    write_file(vault.path / "f", b"x")
    with (vault.path / "f").open("rb") as file:
        identifier = policy_identifier(file.fileno())
    assert identifier is not None
    assert len(identifier) == 16
    with Path("/proc/self/stat").open("rb") as file:
        assert policy_identifier(file.fileno()) is None
