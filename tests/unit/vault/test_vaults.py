"""Vaults on a real file system with a real TPM: made, opened, locked, resealed, recovered."""

import os
import subprocess
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import open_vaults
from cas.errors import (
    AlreadyExistsError,
    ConflictError,
    EncryptionUnsupportedError,
    InterruptedOperationError,
    InUseError,
    KeyMismatchError,
    LayoutError,
    PcrMismatchError,
    SealedKeyError,
    StorageError,
    TpmUnavailableError,
    VaultLockedError,
    VaultNotEncryptedError,
)
from cas.fsops.durable import write_file
from cas.fsops.encryption import EncryptionState, encryption_state
from cas.fsops.locks import lock
from cas.model.cancellation import Cancellation, begin_operation
from cas.model.vault_settings import ProviderName, VaultName
from cas.store.directories import create_directories, find_deviations
from cas.store.guard import VaultGuard
from cas.vault.unlock_record import UnlockMethod
from cas.vault.vaults import VaultState
from tests.support.loopfs import LoopFileSystem
from tests.support.vaults import VaultMachine, no_passphrase, secret

pytestmark = pytest.mark.slow

BOTH = tuple(VaultName)


@pytest.fixture
def ready(machine: VaultMachine) -> VaultMachine:
    """A machine whose vaults are made and open, with something in the one."""
    machine.vaults.init()
    write_file(machine.vault / "note", b"precious")
    return machine


def _note(machine: VaultMachine) -> bytes:
    return (machine.vault / "note").read_bytes()


def test_vaults_are_made_encrypted_and_open_with_their_layout(ready: VaultMachine) -> None:
    """One sealed under PCRs, one without, and every directory as the layout wants it."""
    assert list(find_deviations(ready.settings)) == []
    vault, unsealed = ready.status(), ready.status(VaultName.UNSEALED)
    assert vault.state is unsealed.state is VaultState.OPEN
    assert vault.policy is not None
    assert (vault.policy.version, vault.policy.contents) == (2, "aes-256-xts")
    assert (vault.provider, vault.pcrs, vault.differing_pcrs) == ("tpm", (0, 4, 7), ())
    assert (unsealed.provider, unsealed.pcrs, unsealed.differing_pcrs) == ("tpm", (), ())
    assert vault.unlock_method is UnlockMethod.TPM
    assert vault.problem is unsealed.problem is None
    clear = ready.settings.layout.clear_volumes
    assert encryption_state(clear) is EncryptionState.PLAIN


def test_init_that_is_repeated_changes_nothing(ready: VaultMachine) -> None:
    """The same keys, the same sealings; what was locked is opened."""
    before = [ready.sealed(name).read_bytes() for name in BOTH]
    ready.vaults.init()
    ready.vaults.lock()
    ready.vaults.init()
    assert [ready.sealed(name).read_bytes() for name in BOTH] == before
    assert _note(ready) == b"precious"


def test_init_after_the_layout_encrypts_its_empty_directories(machine: VaultMachine) -> None:
    """The order of the two commands does not matter."""
    create_directories(machine.settings)
    machine.vaults.init()
    assert machine.status().state is VaultState.OPEN
    assert list(find_deviations(machine.settings)) == []


@pytest.mark.parametrize("what", ["file", "link"])
def test_init_of_a_directory_with_content_is_refused_and_touches_nothing(
    machine: VaultMachine, what: str
) -> None:
    """Data in clear stays what it is, and stays."""
    create_directories(machine.settings)
    entry = machine.settings.layout.volumes / "entry"
    entry.touch() if what == "file" else entry.symlink_to(machine.disk.path)
    with pytest.raises(ConflictError, match="entry"):
        machine.vaults.init()
    assert os.path.lexists(entry)
    assert encryption_state(machine.vault) is EncryptionState.PLAIN
    assert list(find_deviations(machine.settings)) == []


def test_init_without_encryption_on_the_file_system_tells_the_way_out(
    loop_ext4: Callable[..., LoopFileSystem], machine: VaultMachine
) -> None:
    """Before a key is made."""
    plain = loop_ext4(16 * 1024 * 1024, "^encrypt")
    settings = replace(machine.settings, persist=plain.path)
    with pytest.raises(EncryptionUnsupportedError, match="tune2fs"):
        open_vaults(settings, ask=no_passphrase).init()
    assert list(settings.layout.vault_keys.iterdir()) == []


def test_vault_opens_after_a_reboot_into_the_same_state(ready: VaultMachine) -> None:
    """And is closed until then: neither names nor content can be had."""
    ready.reboot()
    assert ready.status().state is VaultState.LOCKED
    assert not (ready.vault / "note").exists()
    with pytest.raises(VaultLockedError):
        write_file(ready.vault / "other", b"x")
    ready.vaults.unlock()
    assert _note(ready) == b"precious"
    assert ready.status().unlock_method is UnlockMethod.TPM
    ready.vaults.unlock()


def test_vault_stays_shut_while_pcrs_differ_until_it_is_recovered(ready: VaultMachine) -> None:
    """The other vault opens; a wrong key does nothing; the right one opens and seals anew."""
    key = ready.escrow()
    ready.reboot()
    ready.tpm.extend(7, b"an update")
    with pytest.raises(PcrMismatchError, match="differ: 7"):
        ready.vaults.unlock()
    assert ready.status(VaultName.UNSEALED).state is VaultState.OPEN
    assert (ready.status().state, ready.status().differing_pcrs) == (VaultState.LOCKED, (7,))
    with secret(bytes(32)) as wrong, pytest.raises(KeyMismatchError, match="expected"):
        ready.vaults.recover(VaultName.VAULT, wrong)
    assert ready.status().state is VaultState.LOCKED
    with secret(key) as right:
        ready.vaults.recover(VaultName.VAULT, right)
    assert _note(ready) == b"precious"
    assert ready.status().unlock_method is UnlockMethod.RECOVERED
    ready.vaults.lock()
    ready.vaults.unlock()
    assert _note(ready) == b"precious"
    ready.reboot()
    with pytest.raises(PcrMismatchError, match="differ: 7"):
        ready.vaults.unlock()


def test_recovery_without_resealing_leaves_the_sealing(ready: VaultMachine) -> None:
    """For whoever does not trust the state of now."""
    key, before = ready.escrow(), ready.sealed().read_bytes()
    ready.vaults.lock()
    ready.tpm.extend(7, b"suspicious")
    with secret(key) as right:
        ready.vaults.recover(VaultName.VAULT, right, reseal=False)
    assert _note(ready) == b"precious"
    assert ready.sealed().read_bytes() == before


def test_key_of_the_other_vault_is_no_key_of_this_one(ready: VaultMachine) -> None:
    """Each has its own."""
    other = ready.escrow(VaultName.UNSEALED)
    ready.vaults.lock()
    with secret(other) as key, pytest.raises(KeyMismatchError):
        ready.vaults.recover(VaultName.VAULT, key)
    assert ready.status().state is VaultState.LOCKED


def test_reseal_binds_the_key_to_the_state_of_now(ready: VaultMachine) -> None:
    """With the escrowed key when the old sealing does not open any more, without it before."""
    key = ready.escrow()
    ready.vaults.reseal()
    ready.tpm.extend(4, b"a new kernel")
    with pytest.raises(PcrMismatchError):
        ready.vaults.reseal([VaultName.VAULT])
    with secret(bytes(32)) as wrong, pytest.raises(KeyMismatchError):
        ready.vaults.reseal([VaultName.VAULT], wrong)
    with secret(key) as right:
        ready.vaults.reseal([VaultName.VAULT], right)
    ready.vaults.lock()
    ready.vaults.unlock()
    assert _note(ready) == b"precious"


def test_reseal_moves_a_key_to_another_provider(ready: VaultMachine, tmp_path: Path) -> None:
    """From the TPM into a file and back, the data untouched."""
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(ready.escrow())
    ready.configure(ProviderName.KEY_FILE, key_file=path)
    ready.vaults.reseal([VaultName.VAULT])
    ready.tpm.stop()
    ready.vaults.lock([VaultName.VAULT])
    ready.vaults.unlock([VaultName.VAULT])
    assert ready.status().unlock_method is UnlockMethod.KEY_FILE
    ready.tpm.start()
    ready.configure(ProviderName.TPM)
    ready.vaults.reseal([VaultName.VAULT])
    path.unlink()
    ready.vaults.lock()
    ready.vaults.unlock()
    assert _note(ready) == b"precious"


def test_reseal_that_fails_leaves_the_old_sealing(ready: VaultMachine) -> None:
    """A TPM that goes away, a machine that measures nothing."""
    before = ready.sealed().read_bytes()
    key = ready.escrow()
    ready.tpm.stop()
    with secret(key) as right, pytest.raises(TpmUnavailableError):
        ready.vaults.reseal([VaultName.VAULT], right)
    ready.configure(ProviderName.DISABLED)
    with secret(key) as right, pytest.raises(VaultNotEncryptedError, match="disabled"):
        ready.vaults.reseal([VaultName.VAULT], right)
    assert ready.sealed().read_bytes() == before


def _cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


@pytest.mark.parametrize("damage", [_cut, lambda raw: b"", lambda raw: b"\0" * len(raw)])
def test_damaged_sealed_key_is_told_and_recovered_from(
    ready: VaultMachine, damage: Callable[[bytes], bytes]
) -> None:
    """Without its noted digest the given key is judged by what the directory names."""
    key = ready.escrow()
    ready.vaults.lock()
    ready.sealed().write_bytes(damage(ready.sealed().read_bytes()))
    with pytest.raises(SealedKeyError, match="cas vault recover"):
        ready.vaults.unlock()
    assert "damaged" in (ready.status().problem or "")
    with secret(bytes(32)) as wrong, pytest.raises(KeyMismatchError):
        ready.vaults.recover(VaultName.VAULT, wrong)
    with secret(key) as right:
        ready.vaults.recover(VaultName.VAULT, right)
    ready.vaults.lock()
    ready.vaults.unlock()
    assert _note(ready) == b"precious"


def test_pipe_in_the_place_of_the_sealed_key_is_told_and_recovered_from(
    ready: VaultMachine,
) -> None:
    """Nobody waits for its other end."""
    key = ready.escrow()
    ready.vaults.lock()
    ready.sealed().unlink()
    os.mkfifo(ready.sealed())
    with pytest.raises(StorageError, match="not a regular file"):
        ready.vaults.unlock()
    assert "not a regular file" in (ready.status().problem or "")
    with secret(key) as right:
        ready.vaults.recover(VaultName.VAULT, right)
    ready.vaults.lock()
    ready.vaults.unlock()
    assert _note(ready) == b"precious"


def test_missing_sealed_key_is_never_replaced_by_a_new_key(ready: VaultMachine) -> None:
    """Init does not take an encrypted directory for a new one."""
    key = ready.escrow()
    ready.vaults.lock()
    ready.sealed().unlink()
    with pytest.raises(SealedKeyError):
        ready.vaults.unlock()
    with pytest.raises(AlreadyExistsError, match="cas vault recover"):
        ready.vaults.init()
    assert not ready.sealed().exists()
    with secret(key) as right:
        ready.vaults.recover(VaultName.VAULT, right)
    assert _note(ready) == b"precious"


def test_exchanged_sealed_keys_open_nothing(ready: VaultMachine) -> None:
    """One that opens, of another vault, is found out before kernel, escrow or seal get the key."""
    ready.sealed().write_bytes(ready.sealed(VaultName.UNSEALED).read_bytes())
    with pytest.raises(KeyMismatchError):
        ready.escrow()
    with pytest.raises(KeyMismatchError):
        ready.vaults.reseal([VaultName.VAULT])
    ready.vaults.lock()
    with pytest.raises(KeyMismatchError):
        ready.vaults.unlock([VaultName.VAULT])
    assert ready.status().state is VaultState.LOCKED
    assert "another key" in (ready.status().problem or "")


def test_status_says_what_it_can_without_a_tpm(ready: VaultMachine) -> None:
    """What the kernel and the file say, and that the TPM does not answer."""
    ready.tpm.stop()
    status = ready.status()
    assert (status.state, status.provider) == (VaultState.OPEN, "tpm")
    assert status.differing_pcrs is None
    assert "no TPM answers" in (status.problem or "")


def test_vault_half_locked_is_not_called_locked(ready: VaultMachine) -> None:
    """Whoever has a file open is named; a repeat after he left completes it."""
    with (ready.vault / "note").open("rb") as file:
        with pytest.raises(InUseError, match=f"process {os.getpid()}"):
            ready.vaults.lock(wait_seconds=0)
        assert ready.status().state is VaultState.HALF_LOCKED
        with pytest.raises(VaultLockedError):
            VaultGuard(ready.settings.layout, require_encryption=True).check_writable()
        assert file.read() == b"precious"
    ready.vaults.lock()
    assert ready.status().state is VaultState.LOCKED
    assert ready.status().unlock_method is UnlockMethod.NONE
    ready.vaults.lock()


def test_lock_whose_caller_gave_up_waits_for_nobody(ready: VaultMachine) -> None:
    """As when the deadline of a call is over before the time that it would wait for others."""
    with (ready.vault / "note").open("rb"):
        with pytest.raises(InterruptedOperationError):
            copy_context().run(_lock_given_up, ready)
        assert ready.status().state is VaultState.HALF_LOCKED
    ready.vaults.lock()
    assert ready.status().state is VaultState.LOCKED


def _lock_given_up(machine: VaultMachine) -> None:
    cancel = Cancellation()
    cancel.set()
    begin_operation(cancel)
    machine.vaults.lock(wait_seconds=0)  # so that a lock that does not look ends, too


def test_vault_half_locked_opens_again(ready: VaultMachine) -> None:
    """For whoever changes his mind."""
    with (ready.vault / "note").open("rb"):
        with pytest.raises(InUseError):
            ready.vaults.lock(wait_seconds=0)
        ready.vaults.unlock()
        assert ready.status().state is VaultState.OPEN
        write_file(ready.vault / "other", b"x")


def test_lock_refuses_what_is_mounted_and_no_volume(ready: VaultMachine) -> None:
    """Nothing of somebody else's is unmounted, and the key stays."""
    place = ready.settings.layout.volumes / "elsewhere"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        with pytest.raises(InUseError, match="no volume"):
            ready.vaults.lock()
        assert ready.status().state is VaultState.OPEN
    finally:
        subprocess.run(["umount", place], check=True)
    ready.vaults.lock()


def test_vaults_lock_and_open_one_by_one(ready: VaultMachine) -> None:
    """The one does not take the other along."""
    for name in BOTH:
        [other] = set(BOTH) - {name}
        ready.vaults.lock([name])
        assert ready.status(name).state is VaultState.LOCKED
        assert ready.status(other).state is VaultState.OPEN
        ready.vaults.unlock([name])
    assert _note(ready) == b"precious"


def test_disabled_vaults_are_plain_and_say_so(machine: VaultMachine) -> None:
    """Init makes the layout, unlock has nothing to do, lock and escrow are refused."""
    machine.configure(ProviderName.DISABLED)
    machine.tpm.stop()
    machine.vaults.init()
    machine.vaults.unlock()
    assert list(find_deviations(machine.settings)) == []
    status = machine.status()
    assert (status.state, status.policy, status.provider) == (VaultState.PLAIN, None, None)
    assert not list(machine.settings.layout.vault_keys.iterdir())
    for refused in (machine.vaults.lock, machine.vaults.reseal, machine.escrow):
        with pytest.raises(VaultNotEncryptedError):
            refused()
    with secret(bytes(32)) as key, pytest.raises(VaultNotEncryptedError):
        machine.vaults.recover(VaultName.VAULT, key)


def test_vaults_have_keepers_of_their_own(machine: VaultMachine, tmp_path: Path) -> None:
    """One key file serves one vault, the other stays plain."""
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(bytes(range(32)))
    machine.configure(ProviderName.KEY_FILE, key_file=path, unsealed_provider=ProviderName.DISABLED)
    machine.vaults.init()
    assert machine.status(VaultName.UNSEALED).state is VaultState.PLAIN
    machine.vaults.lock()
    assert machine.status().state is VaultState.LOCKED
    path.write_bytes(bytes(32))
    with pytest.raises(KeyMismatchError):
        machine.vaults.unlock()
    path.write_bytes(bytes(range(32)))
    machine.vaults.unlock()
    assert machine.status().state is VaultState.OPEN


def test_passphrase_opens_both_vaults(machine: VaultMachine) -> None:
    """A wrong one opens none."""
    machine.configure(ProviderName.PASSPHRASE)
    open_vaults(machine.settings, ask=lambda: secret(b"right")).init()
    machine.vaults.lock()
    with pytest.raises(KeyMismatchError):
        open_vaults(machine.settings, ask=lambda: secret(b"wrong")).unlock()
    assert machine.status().state is VaultState.LOCKED
    open_vaults(machine.settings, ask=lambda: secret(b"right")).unlock()
    assert machine.status().state is VaultState.OPEN


def test_guard_refuses_a_plain_directory_in_the_place_of_a_vault(ready: VaultMachine) -> None:
    """Whose file system was exchanged would write in clear what was to be encrypted."""
    ready.vault.rename(ready.vault.with_name("gone"))
    ready.vault.mkdir()
    guard = VaultGuard(ready.settings.layout, require_encryption=False)
    with pytest.raises(VaultNotEncryptedError, match="vault init"):
        guard.check_writable()
    assert ready.status().state is VaultState.UNFINISHED
    with pytest.raises(VaultNotEncryptedError):
        ready.vaults.unlock([VaultName.VAULT])


def test_guard_refuses_while_the_vault_is_being_locked(ready: VaultMachine) -> None:
    """Nobody begins what would keep it open; a killed locker is in nobody's way."""
    guard = VaultGuard(ready.settings.layout, require_encryption=True)
    with lock(ready.settings.layout.vault_closing), pytest.raises(VaultLockedError, match="being"):
        guard.check_writable()
    assert guard.check_writable() is EncryptionState.ENCRYPTED_UNLOCKED


def test_layout_of_a_locked_vault_is_told_as_locked(ready: VaultMachine) -> None:
    """Not as missing, and nothing is created; other directories are still looked at."""
    ready.vaults.lock()
    ready.settings.layout.clear_volumes.rmdir()
    found = {(found.path, found.problem) for found in find_deviations(ready.settings)}
    layout = ready.settings.layout
    assert found == {
        (layout.vault, "locked"),
        (layout.unsealed_vault, "locked"),
        (layout.clear_volumes, "missing"),
    }
    with pytest.raises(VaultLockedError):
        create_directories(ready.settings)
    assert not layout.clear_volumes.exists()


def test_unlock_before_init_tells_to_init(machine: VaultMachine) -> None:
    """There is nothing to open."""
    with pytest.raises(LayoutError, match="cas vault init"):
        machine.vaults.unlock()
    assert machine.status().state is VaultState.MISSING
