"""Opening files of ours where something else may lie in their place."""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from cas.datastores.registry.docker_config import stored_credentials
from cas.datastores.registry.hosts_toml import with_hosts
from cas.datastores.settings import SourceSettings
from cas.errors import CasError, ConfigError, CorruptVolumeError, KeyMismatchError, StorageError
from cas.fsops.reading import regular_file
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.pull.policy_file import load_policy
from cas.store.met_files import met_files
from cas.vault.key_file import read_key_file
from cas.vault.unlock_record import read_unlock
from cas.volumes.disk.records import read_disk_record
from cas.volumes.group_journal import iter_groups
from cas.volumes.holds import iter_held

_NAME = VolumeName(uuid4(), 1)


def test_file_is_read_through_a_link(tmp_path: Path) -> None:
    """Configurations are often links."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with regular_file(tmp_path / "link") as file:
        assert file.read() == b"content"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda _: None])
def test_what_is_no_file_is_an_error_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe without a writer would be waited for."""
    make(tmp_path / "thing")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=r"regular|directory"):
        regular_file(tmp_path / "thing")
    # Something of an earlier test may be closed meanwhile.
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def _groups(directory: Path) -> list[object]:
    return list(iter_groups(Layout(directory)))


def _held(directory: Path) -> list[object]:
    return list(iter_held(Layout(directory)))


def _disk(directory: Path) -> object:
    return read_disk_record(Layout(directory).disk(_NAME, clear=True))


def _met(directory: Path) -> None:
    with met_files(directory / "met"):
        pass


def _hosts(directory: Path) -> object:
    return with_hosts(SourceSettings(url="docker://r"), "r", directory)


@pytest.mark.parametrize(
    ("place", "read", "error"),
    [
        ("policy.toml", lambda at: load_policy(at / "policy.toml"), ConfigError),
        ("config.json", lambda at: stored_credentials("r", at / "config.json"), ConfigError),
        ("r/hosts.toml", _hosts, ConfigError),
        ("key", lambda at: read_key_file(at / "key"), KeyMismatchError),
        ("vault.json", lambda at: read_unlock(at / "vault.json"), StorageError),
        ("met", _met, StorageError),
        (Layout(Path("/")).held_volumes / "all", _held, StorageError),
        (Layout(Path("/")).disk(_NAME, clear=True).record, _disk, CorruptVolumeError),
        (Layout(Path("/")).volume_groups / "a.json", _groups, None),
    ],
    ids=lambda value: Path(value).name if isinstance(value, str | Path) else "",
)
def test_pipe_in_the_place_of_a_file_makes_nobody_wait(
    tmp_path: Path,
    place: str | Path,
    read: Callable[[Path], object],
    error: type[CasError] | None,
) -> None:
    """Whoever reads it says what is wrong, or leaves it alone."""
    path = tmp_path / str(place).lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path, 0o600)
    if error is None:
        read(tmp_path)
        return
    with pytest.raises(error):
        read(tmp_path)
