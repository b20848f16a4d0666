"""What is given to systemd, judged by systemd's own tools."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

_FILES = Path(__file__).parents[3] / "cas" / "daemon" / "systemd"
_UNITS = ("cas.service", "cas-vault.service")

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
_WORST_EXPOSURE = {"cas.service": 60, "cas-vault.service": 45}
"""Out of 100, of which a unit without a line of hardening has 96."""


def _run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(params=_UNITS)
def installed_unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit with the command where it is installed here."""
    unit = tmp_path / str(request.param)
    command = Path(sys.executable).with_name("cas")
    unit.write_text((_FILES / request.param).read_text().replace("=cas ", f"={command} "))
    return unit


def _service_lines(unit: Path) -> configparser.SectionProxy:
    options = configparser.RawConfigParser(strict=False)
    options.optionxform = str  # type: ignore[method-assign,assignment]
    options.read(unit)
    return options["Service"]


def test_unit_is_understood_by_systemd(installed_unit: Path) -> None:
    """Every line is known, and the command exists."""
    done = _run("systemd-analyze", "verify", "--man=no", installed_unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unit_is_hardened(installed_unit: Path) -> None:
    """As far as mounting and unpacking permit."""
    threshold = f"--threshold={_WORST_EXPOSURE[installed_unit.name]}"
    options = ("--offline=yes", threshold, "--no-pager")
    done = _run("systemd-analyze", "security", *options, installed_unit)
    assert done.returncode == 0, done.stdout


def test_unit_lives_in_the_mount_namespace_of_the_host(installed_unit: Path) -> None:
    """In one of its own it would mount volumes for nobody, and unmount those of nobody."""
    assert not set(_service_lines(installed_unit)).intersection(_OWN_MOUNT_NAMESPACE)


def test_service_does_not_forbid_what_is_in_images() -> None:
    """Device files and setuid programs."""
    keys = set(_service_lines(_FILES / "cas.service"))
    assert not keys.intersection(_CONTENT_OF_IMAGES)


def test_vaults_are_locked_after_the_service_and_reach_any_tpm() -> None:
    """The end goes the other way round than the beginning; no device is shut out."""
    unit = (_FILES / "cas-vault.service").read_text()
    assert "\nBefore=cas.service\n" in unit
    keys = set(_service_lines(_FILES / "cas-vault.service"))
    assert not keys.intersection({"DeviceAllow", "DevicePolicy", "ProtectClock", "PrivateDevices"})


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
