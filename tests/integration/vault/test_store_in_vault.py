"""The whole store in a vault: used, locked, looked at from outside, opened, used again."""

import os
import subprocess
from contextvars import copy_context
from pathlib import Path

import pytest

from cas.app import Case
from cas.containerd.daemon import Daemon
from cas.errors import InterruptedOperationError, InUseError, VaultLockedError
from cas.fsops.encryption_keys import remove_key
from cas.model.cancellation import Cancellation, begin_operation
from cas.model.digest import Digest
from cas.model.vault_settings import VaultName
from cas.vault.vaults import VaultState
from cas.volumes.volumes import VolumeState
from tests.support.images import layered_image
from tests.support.vaults import VaultMachine
from tests.support.volumes import volume_name

pytestmark = pytest.mark.slow

_NAME = "example.com/secret/of-the-house:1"
_MARKER = b"f3c6a1e0 what nobody may read from the disk"
_FILE = "f3c6a1e0-name-that-nobody-may-read"


def _encrypted_names(vault: Path) -> list[str]:
    return sorted(str(path) for path in vault.rglob("*"))


def _on_disk(device: VaultMachine, needles: list[bytes]) -> list[bytes]:
    """Which of them can be found in the raw image of the file system."""
    subprocess.run(["sync", "-f", device.disk.path], check=True)
    found: set[bytes] = set()
    with device.disk.image.open("rb") as image:
        before = b""
        while chunk := image.read(1 << 20):
            window = before + chunk
            found.update(needle for needle in needles if needle in window)
            before = chunk[-256:]
    return sorted(found)


def test_store_in_a_vault_from_ingest_to_the_next_boot(
    device: VaultMachine, device_daemon: Daemon, tmp_path: Path
) -> None:
    """Locked, the raw disk shows neither names nor content; opened, all of it is there."""
    name = volume_name()
    image = layered_image(2, name=_NAME)
    with Case.open(device.settings) as case:
        case.images.import_archive(image.write_oci_tar(tmp_path / "image.tar"))
        (tmp_path / "blob").write_bytes(_MARKER * 10)
        blob = case.blobs.ingest(tmp_path / "blob").digest
        rootfs = case.volumes.prepare(name, _NAME, activate=True).rootfs
        (rootfs / _FILE).write_bytes(_MARKER)
    clear = device.settings.layout.clear_volumes / "clear"
    clear.write_bytes(b"seen: " + _MARKER[:8])
    device_daemon.stop()
    device.vaults.lock()
    needles = [_MARKER, _FILE.encode(), b"of-the-house", blob.hex.encode(), b"layer-0"]
    assert _on_disk(device, [*needles, b"seen: " + _MARKER[:8]]) == [b"seen: " + _MARKER[:8]]
    locked = _encrypted_names(device.vault)
    assert not any(part in entry for entry in locked for part in ("case", "volumes", str(name)))
    device.reboot()
    assert device.status().state is VaultState.LOCKED
    device.vaults.unlock()
    device_daemon.start()
    with Case.open(device.settings) as case:
        assert case.volumes.get(name).state is VolumeState.INACTIVE
        case.volumes.activate(name)
        assert (rootfs / _FILE).read_bytes() == _MARKER
        assert (rootfs / "top").read_text() == "1\n"
        assert b"".join(case.blobs.read(blob)) == _MARKER * 10
        assert list(case.check.run(read_data=True)) == []


def test_lock_deactivates_volumes_of_any_kind_of_user_but_forces_none(
    device: VaultMachine, device_daemon: Daemon, tmp_path: Path
) -> None:
    """A volume in use keeps the vault open, and its user is named; then it goes down in order."""
    name = volume_name()
    with Case.open(device.settings) as case:
        case.images.import_archive(
            layered_image(1, name=_NAME).write_oci_tar(tmp_path / "image.tar")
        )
        rootfs = case.volumes.prepare(name, _NAME, activate=True).rootfs
    device_daemon.stop()
    with (rootfs / "file").open("wb") as file:
        file.write(_MARKER)
        with pytest.raises(InUseError, match=f"process {os.getpid()}"):
            device.vaults.lock()
        assert device.status().state is VaultState.OPEN
    device.vaults.lock()
    assert not os.path.ismount(rootfs)
    device.vaults.unlock()
    device_daemon.start()
    with Case.open(device.settings) as case:
        assert (case.volumes.activate(name).rootfs / "file").read_bytes() == _MARKER


def _lock_given_up(machine: VaultMachine) -> None:
    cancel = Cancellation()
    cancel.set()
    begin_operation(cancel)
    machine.vaults.lock(wait_seconds=0)


def test_lock_under_a_containerd_that_nobody_stops_is_refused(
    device: VaultMachine, device_daemon: Daemon
) -> None:
    """It is named, and the vault stays open for it; a caller who gave up is not waited for."""
    with pytest.raises(InUseError, match=rf"pid {device_daemon.pid}\)"):
        device.vaults.lock(wait_seconds=0)
    with pytest.raises(InterruptedOperationError):
        copy_context().run(_lock_given_up, device)
    assert device.status().state is VaultState.OPEN
    with Case.open(device.settings) as case:
        assert list(case.images.iter_images()) == []
    device.vaults.lock([VaultName.UNSEALED])
    assert device.status(VaultName.UNSEALED).state is VaultState.LOCKED


def test_key_taken_under_a_running_containerd_harms_nothing(
    device: VaultMachine, device_daemon: Daemon, tmp_path: Path
) -> None:
    """As by `fscrypt lock`: half locked, writers are refused, and after unlock all is whole."""
    (tmp_path / "blob").write_bytes(_MARKER)
    with Case.open(device.settings) as case:
        digest = case.blobs.ingest(tmp_path / "blob").digest
        policy = device.status().policy
        assert policy is not None
        assert not remove_key(device.disk.path, policy.identifier)
        assert device.status().state is VaultState.HALF_LOCKED
        before = _encrypted_names(device.vault)
        (tmp_path / "other").write_bytes(_MARKER * 2)
        with pytest.raises(VaultLockedError):
            case.blobs.ingest(tmp_path / "other")
        with pytest.raises(VaultLockedError):
            Case.open(device.settings)
        assert _encrypted_names(device.vault) == before
        device.vaults.unlock()
        assert case.blobs.ingest(tmp_path / "other").digest == Digest.of(_MARKER * 2)
        assert b"".join(case.blobs.read(digest)) == _MARKER
        assert list(case.check.run(read_data=True)) == []
