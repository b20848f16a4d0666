"""Where a vault's key is looked for, while it is used and afterwards, and not found."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cas.model.vault_settings import VaultName
from cas.rpc.client.vault import VaultClient
from cas.vault.key import master_key
from tests.support.service import Service
from tests.support.vaults import VaultMachine, secret
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[3]
_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}
_LARGEST = 64 * 1024 * 1024


def _forms(key: bytes) -> list[bytes]:
    """The key and what the kernel gets, as programs would write them."""
    with secret(key) as own, master_key(own, VaultName.VAULT) as master:
        raw = [key, bytes(master.view)]
    return [form for each in raw for form in (each, each.hex().encode(), base64.b64encode(each))]


def _told() -> Iterator[Path]:
    """Arguments and environment of every process."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            yield process / "cmdline"
            yield process / "environ"


def _in_memory() -> Iterator[Path]:
    """The files of every file system that is nothing but memory."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind in _IN_MEMORY:
            for directory, _, names in os.walk(place):
                yield from (Path(directory, name) for name in names)


def _found(needles: list[bytes], *places: Path) -> list[Path]:
    """The places, and whatever every process tells and memory holds, that have one of them."""
    found = []
    for path in (*_told(), *_in_memory(), *places):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= _LARGEST:
                content = path.read_bytes()
                found += [path for needle in needles if needle in content]
    return found


def _swappable(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "VmLck:\t       0 kB" in status


def _core_limit(pid: int) -> str:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("Max core file size")]
    return line.split()[-3]


def test_key_is_looked_for_where_it_would_be_seen(tmp_path: Path) -> None:
    """What the other test does not find it would find here."""
    needle = os.urandom(32)
    (tmp_path / "log").write_bytes(b"key=" + needle.hex().encode())
    sleeping = subprocess.Popen(
        ["sleep", "infinity"],
        env={"KEY": base64.b64encode(needle).decode()},
        stdin=subprocess.DEVNULL,
    )
    try:
        forms = [needle.hex().encode(), base64.b64encode(needle)]
        environment = Path(f"/proc/{sleeping.pid}/environ")
        assert set(_found(forms, tmp_path / "log")) == {environment, tmp_path / "log"}
    finally:
        sleeping.kill()
        sleeping.wait()


def test_key_is_in_no_environment_argument_log_or_memory_file(
    device: VaultMachine, waiting: Service, vaults: VaultClient
) -> None:
    """In the middle of a recovery, after it, after an unlock by the service, and when locked."""
    device.vaults.unlock()
    key = device.escrow()
    device.vaults.lock()
    needles, log = _forms(key), waiting.config.parent
    places = [path for path in log.iterdir() if path.is_file()]
    command = [sys.executable, "-m", "cas", "-vv", "--config", str(waiting.config)]
    with subprocess.Popen(
        [*command, "vault", "recover", "--no-reseal", "-"], cwd=_ROOT, stdin=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(key)
        process.stdin.flush()
        wait_for(lambda: not _swappable(process.pid))  # and now it reads the key
        assert _core_limit(process.pid) == "0"
        assert _found(needles, *places) == []
        process.stdin.close()
    assert process.returncode == 0
    assert _found(needles, *places) == []
    device.vaults.lock()
    with secret(key) as given:
        vaults.recover(VaultName.VAULT, given, reseal=False)
    assert not _swappable(waiting.process.pid)
    assert _core_limit(waiting.process.pid) == "0"
    assert _found(needles, *places) == []
    vaults.lock()
    assert _found(needles, *places) == []
