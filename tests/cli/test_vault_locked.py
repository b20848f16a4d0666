"""Every command that writes, on a locked vault: refused with 7, and nothing comes into being."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from cas.app import open_vaults
from cas.cli.main import cli
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRecord
from cas.model.layout import DiskPaths
from cas.model.settings import Settings
from cas.model.vault_settings import ProviderName, VaultSettings
from cas.volumes.disk.records import write_disk_record
from tests.cli.conftest import Result, RunCas
from tests.support.daemon import persist_directory, settings_for
from tests.support.images import layered_image
from tests.support.loopfs import LoopFileSystem
from tests.support.vaults import no_passphrase
from tests.support.volumes import volume_name

pytestmark = pytest.mark.slow

VOLUME = str(volume_name())
DIGEST = "sha256:" + "0" * 64
ARCHIVE, BLOB = "ARCHIVE", "BLOB"

WRITERS = [
    ("layout", "init"),
    ("layout", "check", "--fix"),
    ("blob", "ingest", BLOB),
    ("blob", "ingest", "--move", BLOB),
    ("blob", "rm", DIGEST),
    ("blob", "prune", "--force"),
    ("image", "import", ARCHIVE),
    ("image", "tag", "alpine:3.20", "other:1"),
    ("image", "wrap", DIGEST, "disk:1"),
    ("image", "rm", "alpine:3.20"),
    ("image", "prune", "--force"),
    ("volume", "prepare", VOLUME, "--image", "alpine:3.20"),
    ("volume", "activate", VOLUME),
    ("volume", "activate", "--all"),
    ("volume", "deactivate", VOLUME),
    ("volume", "rm", VOLUME),
    ("download", "file:///dev/null", "--digest", DIGEST),
    ("download", "file:///dev/null", "--digest", DIGEST, "--unverified"),
    ("image", "pull", "localhost:1/test/image:1"),
    ("verify", f"{uuid.uuid4()}.{'0' * 64}"),
    ("prune", "--force"),
    ("check", "--fix"),
    ("volume", "snapshot", "create", VOLUME, "--snapshot", "s"),
    ("volume", "snapshot", "rollback", VOLUME, "--snapshot", "s"),
    ("volume", "snapshot", "rm", VOLUME, "--snapshot", "s"),
    ("upgrade", "run"),
    ("upgrade", "release", VOLUME),
]


READERS = {
    "blob cat", "blob exists", "blob inspect", "blob ls", "blob missing", "completion",
    "containerd config", "df", "image exists", "image export", "image inspect", "image ls",
    "layout show", "upgrade plan", "version", "volume inspect",
    "volume snapshot ls", "volume ls", "volume usage", "why",
}  # fmt: skip
OTHERS = {
    # They wait: tests/integration/vault/test_supervision.py.
    "containerd run", "serve",
    # They are what opens and closes it.
    "vault escrow", "vault init", "vault lock", "vault recover", "vault reseal", "vault status",
    "vault unlock",
}  # fmt: skip


def _commands(group: click.Group, *words: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, *words, name)
        else:
            yield " ".join((*words, name))


def test_every_command_is_in_one_of_the_tables() -> None:
    """Whoever adds one says here whether it writes."""
    found = set(_commands(cli))
    written = {
        name
        for name in found
        for words in WRITERS
        if name == " ".join(words[: 1 + name.count(" ")])
    }
    assert found - written == READERS | OTHERS


@pytest.fixture(scope="module")
def locked() -> Iterator[Settings]:
    """A layout in vaults that are locked."""
    with persist_directory() as directory:
        key = directory / "key"
        key.touch(0o600)
        key.write_bytes(bytes(range(32)))
        with LoopFileSystem(_made(directory / "disk"), 32 * 1024 * 1024, ["encrypt"]) as disk:
            vault = VaultSettings(provider=ProviderName.KEY_FILE, key_file=key)
            settings = replace(settings_for(disk.path, "containerd"), vault=vault)
            vaults = open_vaults(settings, ask=no_passphrase)
            vaults.init()
            vaults.lock()
            yield settings


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _entries(settings: Settings) -> list[str]:
    layout = settings.layout
    places = (layout.vault, layout.unsealed_vault)
    return sorted(str(path) for place in places for path in place.rglob("*"))


def _configured(settings: Settings, directory: Path) -> Path:
    config = directory / "config.toml"
    owners = "".join(f'{role} = "root"\n' for role in settings.owners)
    config.write_text(f"[owners]\n{owners}")
    return config


@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_writer_on_a_locked_vault_is_refused_and_creates_nothing(
    words: tuple[str, ...], locked: Settings, run_cas: RunCas, tmp_path: Path
) -> None:
    """Invariant 8, command by command; the vault is asked before containerd is."""
    (tmp_path / "blob").write_bytes(b"content")
    paths = {
        ARCHIVE: str(layered_image(1).write_oci_tar(tmp_path / "archive.tar")),
        BLOB: str(tmp_path / "blob"),
    }
    config = _configured(locked, tmp_path)
    before = _entries(locked)
    arguments = [paths.get(word, word) for word in words]
    result = run_cas("--config", config, "--persist", locked.persist, "--json", *arguments)
    assert result.status == 7, result
    assert json.loads(result.err)["error"]["reference"] == "vault-locked"
    assert "cas vault unlock" in json.loads(result.err)["error"]["message"]
    assert _entries(locked) == before
    assert (tmp_path / "blob").exists()


@pytest.fixture
def clear_disk(locked: Settings) -> DiskPaths:
    """A disk outside the vault, made when that was open."""
    name = volume_name()
    paths = locked.layout.disk(name, clear=True)
    record = DiskRecord(
        name=name,
        origin=None,
        format=DiskFormat.RAW,
        size=4096,
        read_only=False,
        created=datetime.now(UTC),
    )
    write_disk_record(paths, record)
    paths.file.write_bytes(bytes(4096))
    return paths


def test_clear_disks_can_be_used_while_the_vault_is_locked(
    clear_disk: DiskPaths, locked: Settings, run_cas: RunCas, tmp_path: Path
) -> None:
    """Listed, looked at, activated, removed, without containerd; what is in the vault is not."""
    config = _configured(locked, tmp_path)
    name = str(clear_disk.name)

    def volume(*words: object) -> Result:
        return run_cas("--config", config, "--persist", locked.persist, "--json", "volume", *words)

    [listed] = json.loads(volume("ls", "--clear").out)
    assert (listed["name"], listed["disk"]["known"]) == (name, True)
    assert json.loads(volume("inspect", name).out) == [listed]
    for verb in ("activate", "deactivate"):
        assert json.loads(volume(verb, name).out) == [{"name": name, "state": "inactive"}]
        assert volume(verb, "--all").status == 7
    assert volume("ls").status == volume("rm", VOLUME).status == 7
    refused = volume("prepare", VOLUME, "--blank", "--size", "1MiB", "--clear")
    assert (refused.status, "not even in clear" in refused.err) == (7, True)
    with clear_disk.file.open("rb"):
        assert volume("rm", name).status == 4
    assert volume("rm", name).status == 0
    assert not clear_disk.file.exists()
    assert not clear_disk.record.exists()
    assert json.loads(volume("ls", "--clear").out) == []
