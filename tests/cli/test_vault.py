"""``cas vault`` in processes of its own, on a real file system with a real TPM."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.model.vault_settings import VaultName
from cas.vault.vaults import VaultState
from tests.support.vaults import PCRS, VaultMachine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RunVault = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def config(machine: VaultMachine, tmp_path: Path) -> Path:
    """The machine's configuration as a file."""
    path = tmp_path / "config.toml"
    path.write_text(
        f'persist = "{machine.settings.persist}"\n'
        f'[vault]\npcrs = {list(PCRS)}\ntcti = "{machine.tpm.tcti}"\n'
        '[owners]\ndownloader = "root"\nverifier = "root"\nvolumemgr = "root"\n'
    )
    return path


@pytest.fixture
def vault(config: Path) -> RunVault:
    """Run ``cas vault`` with arguments and something on standard input."""

    def run(*arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        command = [sys.executable, "-m", "cas", "--config", str(config), "vault", *arguments]
        return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, check=False)

    return run


def _statuses(vault: RunVault) -> dict[str, dict[str, object]]:
    done = vault("status", "--json")
    assert done.returncode == 0, done.stderr
    return {status["name"]: status for status in json.loads(done.stdout)}


def test_life_of_a_vault_on_the_command_line(vault: RunVault, machine: VaultMachine) -> None:
    """Made, escrowed, locked, shut after an update, recovered, opened again."""
    made = vault("init")
    assert made.returncode == 0, made.stderr
    assert b"sealed under PCRs 0 4 7 of sha256" in made.stdout
    key = vault("escrow")
    assert (key.returncode, len(key.stdout)) == (0, 32)
    assert vault("lock").returncode == 0
    assert [status["state"] for status in _statuses(vault).values()] == ["locked", "locked"]
    machine.tpm.extend(7, b"an update")
    refused = vault("unlock", "--json")
    assert refused.returncode == 7
    error = json.loads(refused.stderr)["error"]
    assert (error["reference"], error["details"]["pcrs"]) == ("pcr-mismatch", "7")
    assert b"differ now: 7" in vault("status").stdout
    wrong = vault("recover", "-", given=bytes(32))
    assert (wrong.returncode, b"[key-mismatch]" in wrong.stderr) == (7, True)
    short = vault("recover", "-", given=key.stdout[:31])
    assert (short.returncode, b"31 bytes" in short.stderr) == (7, True)
    assert vault("recover", "-", given=key.stdout).returncode == 0
    assert _statuses(vault)["vault"]["unlock_method"] == "recovered"
    assert vault("lock", "vault").returncode == 0
    assert vault("unlock").returncode == 0
    assert _statuses(vault)["vault"]["unlock_method"] == "tpm"
    assert vault("reseal").returncode == 0


def test_rights_of_the_unit_are_enough_to_open_and_lock_vaults(
    vault: RunVault, machine: VaultMachine, config: Path
) -> None:
    """As systemd starts ``cas vault unlock`` and ``lock``: with few capabilities, no new ones."""
    unit = (ROOT / "cas/daemon/systemd/cas-vault.service").read_text()
    [line] = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in line.split())
    limited = ["setpriv", f"--bounding-set=-all,{kept}", "--no-new-privs"]
    command = [*limited, sys.executable, "-m", "cas", "--config", str(config), "vault"]
    assert vault("init").returncode == 0
    for verb, state in (("lock", VaultState.LOCKED), ("unlock", VaultState.OPEN)):
        done = subprocess.run([*command, verb], cwd=ROOT, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert machine.status().state is state


@pytest.mark.parametrize(("phase", "status"), [("post-vault", 7), ("pre-vault", 0)])
def test_upgrade_while_the_vault_is_locked_is_refused_but_for_its_first_phase(
    vault: RunVault, config: Path, phase: str, status: int
) -> None:
    """Boot scripts tell by the status that nothing was converted yet."""
    assert vault("init").returncode == vault("lock").returncode == 0
    command = [sys.executable, "-m", "cas", "--config", str(config), "--json", "upgrade", "run"]
    done = subprocess.run([*command, "--phase", phase], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    assert (b'"vault-locked"' in done.stderr) == (status != 0)


def test_status_as_json_has_its_documented_keys(vault: RunVault, machine: VaultMachine) -> None:
    """Whatever the vaults are."""
    empty = _statuses(vault)["vault"]
    assert (empty["state"], empty["encrypted"], empty["policy"]) == ("missing", False, None)
    assert vault("init", "-q").stdout == b"vault\nunsealed-vault\n"
    status = _statuses(vault)["vault"]
    sealed = str(status.pop("sealed"))
    assert sealed.endswith("Z")
    assert status == {
        "name": "vault",
        "path": str(machine.settings.layout.vault),
        "state": "open",
        "encrypted": True,
        "policy": {
            "version": 2,
            "contents": "aes-256-xts",
            "names": "aes-256-cts",
            "padding": 32,
        },
        "provider": "tpm",
        "pcr_bank": "sha256",
        "pcrs": [0, 4, 7],
        "differing_pcrs": [],
        "unlock_method": "tpm",
        "problem": None,
    }
    assert set(empty) == {*status, "sealed"}


def test_passphrase_comes_from_a_file_or_standard_input(
    vault: RunVault, config: Path, tmp_path: Path
) -> None:
    """Never from an argument; without either, and without a terminal, it is asked for in vain."""
    config.write_text(config.read_text().replace("[vault]", '[vault]\nprovider = "passphrase"'))
    file = tmp_path / "passphrase"
    file.write_text("correct horse\nsecond line\n")
    assert vault("init", "--passphrase-file", str(file)).returncode == 0
    assert vault("lock").returncode == 0
    assert vault("unlock").returncode == 2
    assert vault("unlock", "--passphrase-file", "-", given=b"").returncode == 2
    wrong = vault("unlock", "--passphrase-file", "-", given=b"battery staple\n")
    assert (wrong.returncode, b"[key-mismatch]" in wrong.stderr) == (7, True)
    assert vault("unlock", "--passphrase-file", "-", given=b"correct horse\n").returncode == 0


def test_key_is_not_shown_on_a_terminal(vault: RunVault, config: Path) -> None:
    """Terminals keep what they have shown."""
    assert vault("init").returncode == 0
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cas", "--config", str(config), "vault", "escrow"]
    done = subprocess.run(command, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, b"terminal" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("pcrs = [1]", b"lacks 0"),
        ('provider = "cloud"', b"cloud"),
        ('key_file = "relative"', b"key_file"),
        ("color = 1", b"color"),
    ],
)
def test_configuration_that_is_wrong_names_its_key(
    vault: RunVault, config: Path, table: str, told: bytes
) -> None:
    """Before anything is touched."""
    kept = [line for line in config.read_text().splitlines() if not line.startswith("pcrs")]
    config.write_text("\n".join(kept).replace("[vault]", f"[vault]\n{table}"))
    done = vault("status")
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_key_of_two_vaults_at_once_is_a_usage_error(vault: RunVault, tmp_path: Path) -> None:
    """Each has its own."""
    done = vault("reseal", "--key", str(tmp_path / "key"))
    assert (done.returncode, b"one vault" in done.stderr) == (2, True)
    assert vault("lock", "other").returncode == 2


def test_key_leaves_the_process_to_the_kernel_alone(
    vault: RunVault, config: Path, machine: VaultMachine, tmp_path: Path
) -> None:
    """No file, log, pipe, socket, argument or environment of a command has it in clear."""
    trace = tmp_path / "trace"
    strace = [
        "strace", "-f", "-xx", "-v", "-s", "1000000", "-o", str(trace),
        "-e", "trace=write,writev,pwrite64,sendto,sendmsg,execve",
    ]  # fmt: skip
    cas = [sys.executable, "-m", "cas", "-vv", "--config", str(config), "vault"]
    written = ""
    for words in (["init"], ["lock"], ["unlock"], ["reseal"], ["status"]):
        subprocess.run([*strace, *cas, *words], cwd=ROOT, capture_output=True, check=True)
        written += trace.read_text()
    assert _as_traced(b"key_digest") in written, "the trace shows what is written"
    for name in VaultName:
        assert _as_traced(machine.escrow(name)) not in written


def _as_traced(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)
