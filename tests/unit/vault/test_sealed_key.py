"""The file that says how a vault's key is had: strict, replaced in one step, private."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cas.errors import SealedKeyError
from cas.vault.sealed_key import (
    KeyFileSealing,
    PassphraseSealing,
    SealedKey,
    Sealing,
    TpmSealing,
    read_sealed_key,
    write_sealed_key,
)
from tests.support.killing import kill_at

SEALINGS: list[Sealing] = [
    TpmSealing(parent="000b", public=b"public", private=b"private", pcrs={0: "0" * 64}),
    KeyFileSealing(path="/key"),
    PassphraseSealing(salt=bytes(16), cost=2**16, nonce=bytes(12), wrapped=bytes(48)),
]


def _sealed(sealing: Sealing) -> SealedKey:
    return SealedKey(
        format_version=1,
        key_digest="a" * 64,
        identifier="b" * 32,
        sealed=datetime(2026, 1, 2, tzinfo=UTC),
        sealing=sealing,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault-keys" / "vault.json"


@pytest.mark.parametrize("sealing", SEALINGS, ids=lambda sealing: type(sealing).__name__)
def test_sealed_key_that_was_written_is_read_again(path: Path, sealing: Sealing) -> None:
    """In a directory and a file that are root's alone."""
    assert read_sealed_key(path) is None
    write_sealed_key(path, _sealed(sealing))
    assert read_sealed_key(path) == _sealed(sealing)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_sealed_key_cut_anywhere_is_damaged(path: Path) -> None:
    """No prefix of it is another sealed key, and none ends in a traceback."""
    write_sealed_key(path, _sealed(SEALINGS[0]))
    whole = path.read_bytes().rstrip()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SealedKeyError, match="cas vault recover"):
            read_sealed_key(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"format_version": 1', '"format_version": 2'),
        lambda text: text.replace('"tpm"', '"cloud"'),
        lambda text: text.replace("a" * 64, "a" * 63),
        lambda text: text.replace('"parent"', '"other"'),
        lambda text: text.replace("{", "[", 1),
        lambda text: text + "x" * 70_000,
        lambda text: "\x00" * 100,
        lambda text: "\udcff",
    ],
)
def test_sealed_key_of_another_form_is_damaged(path: Path, change: Callable[[str], str]) -> None:
    """Other versions, providers, lengths, names; too much; garbage."""
    write_sealed_key(path, _sealed(SEALINGS[0]))
    path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(SealedKeyError):
        read_sealed_key(path)


def test_cost_that_would_exhaust_the_memory_is_refused(path: Path) -> None:
    """The file lies in the open: nothing in it may make us use more than a bound."""
    write_sealed_key(path, _sealed(SEALINGS[2]))
    path.write_text(path.read_text().replace(str(2**16), str(2**30)))
    with pytest.raises(SealedKeyError):
        read_sealed_key(path)


def test_sealed_key_killed_in_writing_is_the_old_or_the_new(path: Path) -> None:
    """Never something between, and nothing of a killed writer stays after the next one."""
    old, new = _sealed(SEALINGS[1]), _sealed(SEALINGS[2])
    write_sealed_key(path, old)
    seen = []
    step = 0
    while kill_at(step, lambda: write_sealed_key(path, new)):
        seen.append(read_sealed_key(path))
        write_sealed_key(path, old)
        step += 1
    assert seen[0] == old
    assert seen[-1] == new
    assert all(found in (old, new) for found in seen)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
