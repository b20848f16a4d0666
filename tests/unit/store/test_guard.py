"""The vault guard, on plain directories and on a real encrypted file system."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import (
    CasError,
    InternalError,
    InterruptedOperationError,
    InvalidNameError,
    LayoutError,
    SourceNotFoundError,
    StorageError,
    UnavailableError,
    VaultLockedError,
    VaultNotEncryptedError,
)
from cas.fsops.encryption import EncryptionState
from cas.fsops.locks import lock
from cas.model.layout import Layout
from cas.store.guard import VaultGuard
from tests.support.loopfs import LoopFileSystem
from tests.unit.fsops.test_encryption import Vault


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.vault.mkdir()
    return layout


def test_vault_plain_is_allowed_with_one_warning(
    layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it is opened, the process warns once."""
    with caplog.at_level(logging.WARNING, "cas"):
        for _ in range(3):
            state = VaultGuard(layout, require_encryption=False).check_writable()
            assert state is EncryptionState.PLAIN
    assert caplog.text.count("vault is not encrypted") == 1


def test_vault_plain_is_refused_where_encryption_is_required(layout: Layout) -> None:
    """The refusal says what to change."""
    with pytest.raises(VaultNotEncryptedError, match="require_encryption"):
        VaultGuard(layout, require_encryption=True).check_writable()


def test_vault_missing_is_told(tmp_path: Path) -> None:
    """Without a vault directory there is nothing to guard."""
    with pytest.raises(LayoutError, match="cas layout init"):
        VaultGuard(Layout(tmp_path), require_encryption=False).check_writable()


@pytest.mark.slow
@pytest.mark.parametrize("required", [True, False])
def test_vault_encrypted_is_allowed_while_it_is_unlocked(
    loop_ext4: Callable[..., LoopFileSystem], required: bool
) -> None:
    """Nothing is ever written into a locked directory, and every call asks anew."""
    disk = loop_ext4(16 * 1024 * 1024, "encrypt")
    vault = Vault(disk)
    guard = VaultGuard(Layout(disk.path), require_encryption=required)
    assert guard.check_writable() is EncryptionState.ENCRYPTED_UNLOCKED
    vault.lock()
    with pytest.raises(VaultLockedError):
        guard.check_writable()
    vault.unlock()
    assert guard.check_writable() is EncryptionState.ENCRYPTED_UNLOCKED


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (SourceNotFoundError, VaultLockedError),
        (StorageError, VaultLockedError),
        (UnavailableError, VaultLockedError),
        (InterruptedOperationError, VaultLockedError),
        (InvalidNameError, InvalidNameError),
        (InternalError, InternalError),
    ],
)
def test_what_fails_while_the_vault_is_locked_failed_because_of_that(
    kind: type[CasError], cause: type[CasError], layout: Layout
) -> None:
    """A file whose name cannot be read is not one that is absent."""
    guard, error = VaultGuard(layout, require_encryption=False), kind("that is how it looks")
    assert guard.cause_of(error) is error
    layout.vault_closing.parent.mkdir(parents=True)
    with lock(layout.vault_closing):
        assert type(guard.cause_of(error)) is cause
