"""The converter and a vault that is really encrypted, with the old places outside of it."""

import stat
from pathlib import Path

import pytest

from cas.app import open_upgrade
from cas.errors import VaultLockedError
from cas.fsops.encryption import read_policy
from tests.support.old_device import OldApp, OldDevice
from tests.support.vaults import VaultMachine

pytestmark = pytest.mark.slow


@pytest.fixture
def device(machine: VaultMachine) -> OldDevice:
    machine.vaults.init()
    return OldDevice(machine.settings.persist)


def test_run_into_an_encrypted_vault_copies_and_encrypts(
    machine: VaultMachine, device: OldDevice
) -> None:
    """One file system, two policies: no rename leads into the vault; clear volumes stay outside."""
    app, clear = device.add(OldApp("a")), device.add(OldApp("clear"), clear=True)
    boxed = device.add(OldApp("boxed"))
    device.write_checkpoint()
    device.disk(f"{app.old_name()}.raw", b"secret")
    device.disk(f"{clear.old_name()}.raw", b"clear")
    device.container(boxed.old_name())
    actions = {each.target: each.action.value for each in device.plan()}
    assert actions == {
        device.new(app): "copy",
        device.new(clear, clear=True): "rename",
        device.new(boxed): "copy",
    }
    assert {each.result.value for each in device.run()} == {"moved"}
    assert read_policy(device.new(boxed)) == read_policy(machine.vault)
    assert device.new(app).read_bytes() == b"secret"
    machine.vaults.lock()
    assert not device.new(app).exists()
    assert device.new(clear, clear=True).read_bytes() == b"clear"


def test_locked_vault_refuses_plan_and_run_and_nothing_is_touched(
    machine: VaultMachine, device: OldDevice
) -> None:
    """What was converted already cannot be told from outside."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    old = device.disk(f"{app.old_name()}.raw", b"data")
    machine.vault.chmod(0o755)  # as older software made it
    machine.vaults.lock()
    before = _listed(device.persist)
    for use in (device.plan, device.run):
        with pytest.raises(VaultLockedError):
            use()
    assert old.read_bytes() == b"data"
    waiting = list(open_upgrade(device.settings).waiting())
    assert [(each.found.path, each.reason.value) for each in waiting] == [(old, "before-vault")]
    assert "is decided when" in waiting[0].explanation  # it may just as well be left
    assert _listed(device.persist) == before
    assert stat.S_IMODE(machine.vault.stat().st_mode) == 0o755
    machine.vaults.unlock()
    assert [each.result.value for each in device.run()] == ["moved"]


def _listed(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if "run" not in path.parts}
