"""What is given to systemd, judged by systemd's own tools."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

_FILES = Path(__file__).parents[3] / "cas" / "daemon" / "systemd"
_UNIT = _FILES / "cas.service"

_OWN_MOUNT_NAMESPACE = (
    "BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "ExtensionDirectories",
    "ExtensionImages", "InaccessiblePaths", "MountAPIVFS", "MountFlags", "MountImages",
    "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateNetwork", "PrivateTmp",
    "PrivateUsers", "ProcSubset", "ProtectControlGroups", "ProtectHome", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem",
    "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem",
)  # fmt: skip
"""Source: systemd.exec(5), and ``exec_needs_mount_namespace`` in systemd."""
_CONTENT_OF_IMAGES = ("DeviceAllow", "DevicePolicy", "ProtectClock", "RestrictSUIDSGID")
_WORST_EXPOSURE = "60"
"""Out of 100, of which a unit without a line of hardening has 96."""


def _run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def installed_unit(tmp_path: Path) -> Path:
    """The unit with the command where it is installed here."""
    unit = tmp_path / "cas.service"
    command = Path(sys.executable).with_name("cas")
    unit.write_text(_UNIT.read_text().replace("ExecStart=cas ", f"ExecStart={command} "))
    return unit


def test_unit_is_understood_by_systemd(installed_unit: Path) -> None:
    """Every line is known, and the command exists."""
    done = _run("systemd-analyze", "verify", "--man=no", installed_unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unit_is_hardened(installed_unit: Path) -> None:
    """As far as mounting and unpacking permit."""
    options = ("--offline=yes", f"--threshold={_WORST_EXPOSURE}", "--no-pager")
    done = _run("systemd-analyze", "security", *options, installed_unit)
    assert done.returncode == 0, done.stdout


def test_unit_lives_in_the_mount_namespace_of_the_host() -> None:
    """In one of its own it would mount volumes for nobody."""
    options = configparser.RawConfigParser(strict=False)
    options.optionxform = str  # type: ignore[method-assign,assignment]
    options.read(_UNIT)
    keys = set(options["Service"])
    assert not keys.intersection(_OWN_MOUNT_NAMESPACE)
    assert not keys.intersection(_CONTENT_OF_IMAGES)


def test_accounts_and_directories_are_made_with_owner_and_mode(tmp_path: Path) -> None:
    """The group of the layout may enter the socket's directory, and others may not."""
    root = f"--root={tmp_path}"
    (tmp_path / "etc").mkdir()
    accounts = _run("systemd-sysusers", root, _FILES / "cas.sysusers.conf")
    assert accounts.returncode == 0, accounts.stderr
    groups = {
        name: int(number)
        for name, _, number, *_ in (
            line.split(":") for line in (tmp_path / "etc/group").read_text().splitlines()
        )
    }
    assert {"volumemgr", "cas-downloader", "cas-verifier"} <= set(groups)
    made = _run("systemd-tmpfiles", "--create", root, _FILES / "cas.tmpfiles.conf")
    assert made.returncode == 0, made.stderr
    place = (tmp_path / "run/cas").stat()
    assert (place.st_mode & 0o7777, place.st_uid, place.st_gid) == (0o750, 0, groups["volumemgr"])
    assert (tmp_path / "run/containerd-user").stat().st_mode & 0o7777 == 0o700
