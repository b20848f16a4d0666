"""``cas upgrade`` and ``upgradeconverter``, as a person and a boot script call them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import RunCas
from tests.support.command import write_configuration
from tests.support.daemon import persist_directory
from tests.support.old_device import OldApp, OldDevice

_CONVERTER = Path(sys.executable).with_name("upgradeconverter")
_PLANNED = {
    *("kind", "source", "action", "target", "volume", "reason", "explanation", "size", "needed"),
}
_DONE = _PLANNED | {"result", "digest_before", "digest_after", "sockets", "flags_lost", "error"}

Run = Callable[..., object]


@pytest.fixture
def device() -> Iterator[OldDevice]:
    with persist_directory() as directory:
        (directory / "vault").mkdir()
        yield OldDevice(directory)


@pytest.fixture
def config(device: OldDevice, tmp_path: Path) -> Path:
    return write_configuration(tmp_path, device.settings)


def _entries(device: OldDevice) -> set[Path]:
    return set(device.persist.rglob("*"))


def test_plan_and_dry_run_tell_the_same_and_change_nothing(
    run_cas: RunCas, config: Path, device: OldDevice
) -> None:
    """A table for people, an array for programs, the sources alone with -q."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    old = device.disk(f"{app.old_name()}.raw")
    other = device.disk("lost+found")
    before = _entries(device)
    plan = ("--config", config, "upgrade", "plan")
    dry_run = ("--config", config, "upgrade", "run", "--dry-run")
    for arguments in ([], ["--json"], ["-q"]):
        assert run_cas(*plan, *arguments) == run_cas(*dry_run, *arguments)
    assert set(run_cas(*plan, "-q").out.splitlines()) == {str(old), str(other)}
    documents = json.loads(run_cas(*plan, "--json").out)
    assert all(set(document) == _PLANNED for document in documents)
    table = run_cas(*plan).out
    assert f"-> {device.new(app)}" in table
    assert "the name is not <sha256>-<app UUID>" in table
    assert _entries(device) == before


def test_run_prints_what_became_of_each_thing(
    run_cas: RunCas, config: Path, device: OldDevice
) -> None:
    """A line each; a failure also on stderr and as exit status; JSON has its keys."""
    app, busy = device.add(OldApp("a")), device.add(OldApp("busy"))
    device.write_checkpoint()
    device.disk(f"{app.old_name()}.raw")
    container = device.container(busy.old_name())
    (container / "rootfs").rmdir()
    (container / "rootfs").write_text("no directory")
    done = run_cas("--config", config, "upgrade", "run", "--json")
    documents = json.loads(done.out)
    assert all(set(document) == _DONE for document in documents)
    assert {each["result"] for each in documents} == {"moved", "failed"}
    assert done.status == 9
    assert '"reference": "layout"' in done.err
    (container / "rootfs").unlink()
    assert run_cas("--config", config, "upgrade", "run").out.startswith("moved ")
    assert run_cas("--config", config, "upgrade", "run", "--json").out == "[]\n"


def test_release_lists_and_lets_go(run_cas: RunCas, config: Path, device: OldDevice) -> None:
    """What is held shows with its reason; an unknown name is an error and releases nothing."""
    device.disk(f"{OldApp('a').old_name()}.raw")
    release = ("--config", config, "upgrade", "release")
    assert run_cas("--config", config, "upgrade", "run").status == 5
    assert run_cas(*release, "-q").out == "all\n"
    assert run_cas(*release, "all", "none").status == 3
    [document] = json.loads(run_cas(*release, "all", "--json").out)
    assert (document["name"], document["released"]) == ("all", True)
    assert run_cas(*release, "--json").out == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["post-vault"], 0), (["pre-vault"], 0), (["-n", "post-vault"], 0), (["other"], 2), ([], 2)],
)
def test_converter_of_boot_scripts_takes_the_arguments_of_the_old_one(
    config: Path, device: OldDevice, arguments: list[str], status: int
) -> None:
    """Phase, directory and dry run; an unknown phase is a usage error and runs nothing."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    old = device.disk(f"{app.old_name()}.raw")
    done = subprocess.run(
        [_CONVERTER, "-p", device.persist, *arguments],
        env={**os.environ, "CAS_CONFIG": str(config)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert old.exists() == (arguments != ["post-vault"])
    assert (str(old).encode() in done.stdout) == (status == 0)
    assert b"Traceback" not in done.stderr


def test_upgrade_of_what_is_no_device_is_refused(run_cas: RunCas, config: Path) -> None:
    """A wrong --persist is no empty device."""
    for verb in ("plan", "run"):
        done = run_cas("--config", config, "--persist", "/nowhere", "upgrade", verb)
        assert done.status == 9
        assert "[layout]" in done.err
