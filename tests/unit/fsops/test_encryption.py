"""Plain, unlocked and locked directories, on a real encrypted file system."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import (
    AlreadyExistsError,
    ConflictError,
    DeniedError,
    EncryptionUnsupportedError,
    SourceNotFoundError,
    StorageError,
    VaultLockedError,
)
from cas.fsops.durable import make_directory, publish, write_file
from cas.fsops.encryption import (
    EncryptionState,
    encryption_state,
    policy_identifier,
    read_policy,
    set_policy,
    supports_encryption,
)
from cas.fsops.encryption_keys import KeyStatus, add_key, key_status, remove_key
from cas.fsops.inode import ExclusiveInode, StagedInode
from cas.fsops.secrets import Secret
from tests.support.loopfs import LoopFileSystem
from tests.unit.fsops.conftest import Effects, entries

MakeExt4 = Callable[..., LoopFileSystem]
KEY = bytes(range(64))


def key_of(content: bytes) -> Secret:
    """Give a key with known bytes."""
    key = Secret(len(content))
    key.view[:] = content
    return key


class Vault:
    """An encrypted directory on a file system of its own."""

    def __init__(self, disk: LoopFileSystem) -> None:
        self.path = disk.path / "vault"
        self.path.mkdir()
        self.root = disk.path
        self.identifier = self.unlock()
        set_policy(self.path, self.identifier)

    def unlock(self) -> bytes:
        """Give the kernel the key."""
        with key_of(KEY) as key:
            return add_key(self.root, key)

    def lock(self) -> bool:
        """Take the key away; whether that was complete."""
        return remove_key(self.root, self.identifier)


@pytest.fixture
def vault(ext4: MakeExt4) -> Vault:
    """An unlocked vault."""
    return Vault(ext4(16, "encrypt"))


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
    plain = ext4(16, "^encrypt").path
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


def test_policy_of_a_vault_is_told_locked_or_not(vault: Vault) -> None:
    """Version, ciphers and key can be read before the key is there."""
    policy = read_policy(vault.path)
    assert policy is not None
    assert (policy.version, policy.contents, policy.names) == (2, "aes-256-xts", "aes-256-cts")
    assert (policy.padding, policy.identifier) == (32, vault.identifier)
    vault.lock()
    assert read_policy(vault.path) == policy
    assert read_policy(vault.root) is None


def test_support_of_encryption_is_the_file_systems(
    vault: Vault, ext4: MakeExt4, tiny: Path
) -> None:
    """Plain directories differ in whether they can be encrypted."""
    assert supports_encryption(vault.path)
    assert supports_encryption(vault.root)
    assert not supports_encryption(ext4(16, "^encrypt").path)
    assert not supports_encryption(tiny)
    with pytest.raises(SourceNotFoundError):
        supports_encryption(vault.root / "missing")


def test_key_status_follows_the_key_and_its_users(vault: Vault) -> None:
    """Removal is complete only when nobody reads any more, and may be repeated."""
    assert key_status(vault.root, vault.identifier) is KeyStatus.PRESENT
    write_file(vault.path / "f", b"x")
    with (vault.path / "f").open("rb") as file:
        assert not vault.lock()
        assert key_status(vault.root, vault.identifier) is KeyStatus.INCOMPLETELY_REMOVED
        assert file.read() == b"x"
    assert vault.lock()
    assert vault.lock()
    assert key_status(vault.root, vault.identifier) is KeyStatus.ABSENT
    assert vault.unlock() == vault.identifier
    assert vault.unlock() == vault.identifier


def test_other_keys_open_nothing(vault: Vault) -> None:
    """The kernel takes any key; whether it is the vault's shows in the identifier alone."""
    vault.lock()
    with key_of(bytes(64)) as other:
        assert add_key(vault.root, other) != vault.identifier
    assert encryption_state(vault.path) is EncryptionState.ENCRYPTED_LOCKED


def test_policy_is_set_once_on_empty_directories_under_known_keys_only(vault: Vault) -> None:
    """Every other case is refused with its own error and leaves the directory as it was."""
    set_policy(vault.path, vault.identifier)
    with key_of(bytes(64)) as key:
        other = add_key(vault.root, key)
    with pytest.raises(AlreadyExistsError):
        set_policy(vault.path, other)
    full = vault.root / "full"
    full.mkdir()
    write_file(full / "f", b"x")
    with pytest.raises(ConflictError, match="not empty"):
        set_policy(full, vault.identifier)
    assert read_policy(full) is None
    with pytest.raises(StorageError):
        set_policy(vault.root / "missing", vault.identifier)


def test_file_system_without_encryption_is_refused_with_the_way_out(
    ext4: MakeExt4, tiny: Path
) -> None:
    """For keys and policies alike."""
    for place in (ext4(16, "^encrypt").path, tiny):
        (place / "d").mkdir()
        with key_of(KEY) as key, pytest.raises(EncryptionUnsupportedError, match="tune2fs"):
            add_key(place, key)
        with pytest.raises(EncryptionUnsupportedError, match="tune2fs"):
            set_policy(place / "d", bytes(16))


def test_keys_and_policies_announce_their_effects(
    vault: Vault, effects_of: Callable[[Callable[[], object]], Effects]
) -> None:
    """Crash tests can stop before each of them."""
    empty = vault.root / "empty"
    empty.mkdir()
    assert effects_of(lambda: set_policy(empty, vault.identifier)).kinds() == ["encrypt", "fsync"]
    assert effects_of(vault.lock).kinds() == ["key"]
    assert effects_of(vault.unlock).kinds() == ["key"]


def test_root_alone_may_add_and_remove_keys_of_others(vault: Vault) -> None:
    """A stranger can neither lock the vault for all nor see into it."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(64001, 64001, 64001)
        os.setresuid(64001, 64001, 64001)
        try:
            remove_key(vault.root, vault.identifier)
        except DeniedError:
            os._exit(9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert key_status(vault.root, vault.identifier) is KeyStatus.PRESENT
