"""Making, locking and resealing vaults, killed before each of their changes in turn.

After each kill the vault is openable with the old or the new sealing, never with none, and what
was begun can be done again.
"""

from pathlib import Path

import pytest

from cas.errors import PcrMismatchError
from cas.fsops.durable import sync_file_system, write_file
from cas.fsops.effects import Effect, observed
from cas.fsops.trees import remove_tree
from cas.model.vault_settings import VaultName
from cas.store.directories import create_directories, find_deviations
from cas.vault.vaults import VaultState
from tests.support.killing import kill_at
from tests.support.vaults import VaultMachine, secret

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_STEPS = 300
_FRESH = b"written after the kill"


def _assert_usable(machine: VaultMachine) -> None:
    """Both vaults are open, hold what is written, and open again after a reboot of the disk."""
    for name in VaultName:
        assert machine.status(name).state is VaultState.OPEN
    write_file(machine.vault / "fresh", _FRESH)
    machine.disk.remount()
    assert machine.status().state is VaultState.LOCKED
    machine.vaults.unlock()
    assert (machine.vault / "fresh").read_bytes() == _FRESH


def _forget(machine: VaultMachine) -> None:
    layout = machine.settings.layout
    for name in VaultName:
        remove_tree(layout.vault_directory(name))
    remove_tree(layout.vault_keys)


def _telling_steps(machine: VaultMachine) -> list[int]:
    """The changes that init makes, without those that repeat one in another directory.

    What is the same for both vaults, or for all directories of the layout, is told once; keys and
    policies each time.
    """
    machine.vaults.init()  # what it leaves beside the vaults is there from now on
    _forget(machine)
    create_directories(machine.settings)
    made: list[tuple[Effect, Path]] = []
    with observed(lambda kind, path: made.append((kind, Path(path)))):
        machine.vaults.init()
    roles: dict[object, int] = {}
    for step, (kind, path) in enumerate(made):
        role = (made[step - 1][0], kind, path.parent, path.suffix)
        always = kind in (Effect.KEY, Effect.ENCRYPT)
        roles.setdefault(step if always else role, step)
    assert len(made) > len(roles) > 20
    _forget(machine)
    return [*roles.values(), len(made)]


def test_init_killed_at_any_step_is_completed_by_repetition(machine: VaultMachine) -> None:
    """From the layout in clear to both vaults; no state in between is a dead end."""
    create_directories(machine.settings)
    steps = _telling_steps(machine)
    for step in steps:
        create_directories(machine.settings)
        assert kill_at(step, machine.vaults.init) == (step != steps[-1])
        machine.vaults.init()
        assert list(find_deviations(machine.settings)) == []
        _assert_usable(machine)
        _forget(machine)


def test_init_cut_off_from_power_at_any_step_is_completed_by_repetition(
    machine: VaultMachine,
) -> None:
    """The sealed key is on the device before anything is encrypted under it."""
    create_directories(machine.settings)
    sync_file_system(machine.disk.path)
    for step in _telling_steps(machine)[:-1:3]:
        create_directories(machine.settings)
        assert kill_at(step, machine.vaults.init, last=machine.disk.power_cut)
        machine.disk.remount()
        machine.tpm.reboot()
        machine.vaults.init()
        _assert_usable(machine)
        _forget(machine)


def test_lock_killed_at_any_step_leaves_a_vault_that_opens(machine: VaultMachine) -> None:
    """Open, half locked or locked: the same unlock opens it."""
    machine.vaults.init()
    write_file(machine.vault / "fresh", _FRESH)
    for step in range(_STEPS):
        if not kill_at(step, machine.vaults.lock):
            break
        machine.vaults.unlock()
        assert (machine.vault / "fresh").read_bytes() == _FRESH
    assert machine.status().state is VaultState.LOCKED
    assert machine.status(VaultName.UNSEALED).state is VaultState.LOCKED
    machine.vaults.unlock()
    assert (machine.vault / "fresh").read_bytes() == _FRESH


def test_reseal_killed_at_any_step_leaves_the_old_or_the_new_sealing(
    machine: VaultMachine,
) -> None:
    """The machine in its old state or in its new one opens the vault; one of them always does."""
    machine.vaults.init()
    key = machine.escrow()
    old = machine.sealed().read_bytes()
    machine.tpm.extend(7, b"an update")
    machine.vaults.lock()

    def reseal() -> None:
        with secret(key) as given:
            machine.vaults.reseal([VaultName.VAULT], given)

    opened = []
    for step in range(_STEPS):
        killed = kill_at(step, reseal)
        opened.append(_opens(machine))
        if not killed:
            break
        write_file(machine.sealed(), old)
    assert opened[0] == "old"
    assert opened[-1] == "new"
    assert sorted(opened, key=["old", "new"].index) == opened


def _opens(machine: VaultMachine) -> str:
    """Open the vault in the state of now, or after a reboot into the one before; and lock it."""
    try:
        machine.vaults.unlock()
        machine.vaults.lock()
    except PcrMismatchError:
        machine.tpm.reboot()
        machine.vaults.unlock()
        machine.vaults.lock()
        machine.tpm.extend(7, b"an update")
        return "old"
    return "new"


def test_recovery_killed_at_any_step_can_be_repeated(machine: VaultMachine) -> None:
    """The escrowed key opens it until it is sealed anew, and then as well."""
    machine.vaults.init()
    key = machine.escrow()
    machine.vaults.lock()
    machine.tpm.extend(4, b"a new kernel")
    old = machine.sealed().read_bytes()

    def recover() -> None:
        with secret(key) as given:
            machine.vaults.recover(VaultName.VAULT, given)

    for step in range(_STEPS):
        killed = kill_at(step, recover)
        recover()
        machine.vaults.lock()
        machine.vaults.unlock()
        machine.vaults.lock()
        if not killed:
            break
        write_file(machine.sealed(), old)
    assert step > 5
