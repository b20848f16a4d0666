"""What can be wrong with a vault, as the command tells it, and as the README explains it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.model.vault_settings import VaultName
from tests.cli.conftest import Result, RunCas
from tests.support.loopfs import LoopFileSystem
from tests.support.swtpm import SoftwareTpm
from tests.support.vaults import PCRS, VaultMachine

pytestmark = pytest.mark.slow

_README = (Path(__file__).parents[2] / "README.md").read_text()


def _run(run_cas: RunCas, machine: VaultMachine, directory: Path, *words: str) -> Result:
    config = directory / "config.toml"
    config.write_text(
        f'persist = "{machine.settings.persist}"\n'
        f'[vault]\npcrs = {list(PCRS)}\ntcti = "{machine.tpm.tcti}"\n'
        '[owners]\ndownloader = "root"\nverifier = "root"\nvolumemgr = "root"\n'
    )
    return run_cas("--config", config, "--json", "vault", *words)


def _assert_told(result: Result, reference: str, advice: str) -> None:
    """The error has its words, and the README a row with its reference and status."""
    error = json.loads(result.err.splitlines()[-1])["error"]  # the TPM's library may speak before
    assert error["reference"] == reference, error
    assert advice in error["message"]
    assert "\n" not in error["message"]
    [row] = re.findall(rf"^\| `{reference}` \| (\d+) \|", _README, re.MULTILINE)
    assert result.status == int(row)


def _change_blob(machine: VaultMachine) -> None:
    document = json.loads(machine.sealed().read_text())
    private = document["sealing"]["private"]
    other = "B" if private[40] == "A" else "A"
    document["sealing"]["private"] = private[:40] + other + private[41:]
    machine.sealed().write_text(json.dumps(document))


def _truncate(machine: VaultMachine) -> None:
    raw = machine.sealed().read_bytes()
    machine.sealed().write_bytes(raw[: len(raw) // 2])


def _exchange(machine: VaultMachine) -> None:
    machine.sealed().write_bytes(machine.sealed(VaultName.UNSEALED).read_bytes())


def _lose(machine: VaultMachine) -> None:
    machine.sealed().unlink()


def _clear_tpm(machine: VaultMachine) -> None:
    machine.tpm.clear()


def _lose_tpm(machine: VaultMachine) -> None:
    machine.tpm.stop()


def _change_pcr(machine: VaultMachine) -> None:
    machine.tpm.extend(7, b"an update")


@pytest.mark.parametrize(
    ("spoil", "reference", "advice"),
    [
        (_change_blob, "sealed-key-unusable", "cas vault recover"),
        (_truncate, "sealed-key-unusable", "cas vault recover"),
        (_exchange, "key-mismatch", "another key"),
        (_lose, "sealed-key-unusable", "cas vault recover"),
        (_clear_tpm, "sealed-key-unusable", "cas vault recover"),
        (_lose_tpm, "tpm-unavailable", "tcti"),
        (_change_pcr, "pcr-mismatch", "PCRs that differ: 7"),
    ],
)
def test_vault_that_cannot_be_opened_says_why_and_opens_by_the_escrowed_key(
    spoil: Callable[[VaultMachine], None],
    reference: str,
    advice: str,
    machine: VaultMachine,
    run_cas: RunCas,
    tmp_path: Path,
) -> None:
    """Shut it stays until then; status tells of it and does not fail."""
    machine.vaults.init()
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(machine.escrow())
    machine.vaults.lock()
    spoil(machine)

    _assert_told(_run(run_cas, machine, tmp_path, "unlock", "vault"), reference, advice)

    [status, _] = json.loads(_run(run_cas, machine, tmp_path, "status").out)
    assert (status["state"], status["unlock_method"]) == ("locked", "none")
    assert status["problem"] or status["differing_pcrs"] == [7]
    key = str(tmp_path / "key")
    opened = _run(run_cas, machine, tmp_path, "recover", "--no-reseal", key)
    assert opened.status == 0, opened
    [status, _] = json.loads(_run(run_cas, machine, tmp_path, "status").out)
    assert (status["state"], status["unlock_method"]) == ("open", "recovered")


def test_tpm_in_trouble_with_others_opens_the_vault_when_it_can(
    machine: VaultMachine, run_cas: RunCas, tmp_path: Path
) -> None:
    """One without a free slot is to be asked again; a lockout is none of ours."""
    machine.vaults.init()
    machine.vaults.lock()
    with machine.tpm.filled():
        result = _run(run_cas, machine, tmp_path, "unlock")
        _assert_told(result, "tpm-unavailable", "resource manager")
    machine.tpm.lock_out()
    assert _run(run_cas, machine, tmp_path, "unlock").status == 0


def test_file_system_without_encryption_is_told_from_the_rest(
    loop_ext4: Callable[..., LoopFileSystem],
    software_tpm: SoftwareTpm,
    run_cas: RunCas,
    tmp_path: Path,
) -> None:
    """With the command that switches it on; nothing was sealed."""
    machine = VaultMachine(loop_ext4(32 * 1024 * 1024), software_tpm)
    _assert_told(_run(run_cas, machine, tmp_path, "init"), "encryption-unsupported", "tune2fs")
    assert not machine.sealed().exists()


def test_directory_with_content_is_not_encrypted_and_one_that_is_stays(
    machine: VaultMachine, run_cas: RunCas, tmp_path: Path
) -> None:
    """Somebody's files are touched by nobody; a second init is as good as the first."""
    machine.vault.mkdir()
    (machine.vault / "file").write_text("somebody's")
    _assert_told(_run(run_cas, machine, tmp_path, "init"), "conflict", "not empty")
    assert (machine.vault / "file").read_text() == "somebody's"
    (machine.vault / "file").unlink()
    for _ in range(2):
        assert _run(run_cas, machine, tmp_path, "init").status == 0
    _lose(machine)
    _assert_told(_run(run_cas, machine, tmp_path, "init"), "already-exists", "cas vault recover")
