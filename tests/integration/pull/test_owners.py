"""Who may open the files that agents and volumes make: acted out as each account."""

import grp
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from cas.app import Case
from cas.model.digest import Digest
from cas.model.disk.record import DiskRequest
from cas.model.progress import NO_PROGRESS
from cas.model.settings import Settings
from cas.pull.by_hand import download_unverified, verify_downloads
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import resource
from tests.support.stores import random_bytes
from tests.support.volumes import volume_name

_DATA = random_bytes(100_000)
_OPEN = {"read": 'exec 3<"$1"', "write": 'exec 3>>"$1"', "remove": 'mv -T "$1" "$1.taken"'}
_VOLUMEMGR = 64030
_STRANGER = 64040


@pytest.fixture(autouse=True)
def _passable(pull_settings: Settings) -> Iterator[None]:
    """Everybody may come as far as the layout, as on a device."""
    before = pull_settings.persist.stat().st_mode
    pull_settings.persist.chmod(0o755)
    yield
    pull_settings.persist.chmod(before)


def _may(path: Path, *, group: str | None = None, user: int = _VOLUMEMGR) -> set[str]:
    """What an account can do with a file."""
    assert path.is_file()
    groups = [] if group is None else [grp.getgrnam(group).gr_gid]
    return {
        verb
        for verb, act in _OPEN.items()
        if not subprocess.run(
            ["sh", "-c", act, "sh", path],
            user=user,
            group=user,
            extra_groups=groups,
            capture_output=True,
            check=False,
        ).returncode
    }


def test_volumemgr_reads_what_agents_have_and_changes_none_of_it(
    pull_settings: Settings, registry: HostileRegistry
) -> None:
    """Downloaded by one process, taken over by another: measured meanwhile, by a third."""
    url = registry.on("/disk.img", resource(_DATA))
    owners, layout = pull_settings.owners, pull_settings.layout

    path, _ = download_unverified(
        pull_settings, url, Digest.of(_DATA), size=None, image=UUID(int=1), progress=NO_PROGRESS
    )

    assert path.parent == layout.downloader
    assert path.owner() == owners["downloader"]
    assert _may(path, group=owners["volumemgr"]) == {"read"}
    assert _may(path, user=_STRANGER) == set()
    [verified] = verify_downloads(pull_settings, [path.name])
    assert (verified.parent, path.exists()) == (layout.verified, False)
    assert verified.owner() == owners["verifier"]
    assert _may(verified, group=owners["volumemgr"]) == {"read"}
    assert _may(verified, user=_STRANGER) == set()
    assert verified.read_bytes() == _DATA


@pytest.mark.parametrize("clear", [False, True], ids=["vault", "clear"])
@pytest.mark.parametrize(("read_only", "allowed"), [(False, {"read", "write"}), (True, {"read"})])
def test_volumemgr_opens_disks_and_gives_no_name_to_any(
    case: Case, read_only: bool, allowed: set[str], clear: bool
) -> None:
    """A virtual machine of his can use them; the names are root's alone."""
    request = DiskRequest(None, 1 << 20, read_only=read_only, clear=clear)

    status = case.volumes.prepare_disk(volume_name(), request)

    assert status.disk is not None
    found = status.disk.path
    group = case.settings.owners["volumemgr"]
    assert (found.owner(), found.group()) == ("root", group)
    assert _may(found, group=group) == allowed
    assert _may(found, user=_STRANGER) == set()
    records = case.settings.layout.disk_records(clear=clear)
    assert records.stat().st_mode & 0o077 == 0
    case.volumes.remove(status.name)
