"""Keys under a passphrase, and in a file."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cas.errors import (
    DeniedError,
    KeyMismatchError,
    SealedKeyError,
    SourceNotFoundError,
)
from cas.fsops.secrets import Secret
from cas.vault.key import new_key
from cas.vault.key_file import KeyFileProvider
from cas.vault.passphrase import PassphraseProvider
from cas.vault.sealed_key import KeyFileSealing
from tests.support.vaults import secret


def _saying(text: str) -> Callable[[], Secret]:
    return lambda: secret(text.encode())


def test_passphrase_that_sealed_a_key_opens_it() -> None:
    """And gives the very key; two sealings of one key look different."""
    provider = PassphraseProvider(_saying("correct horse"))
    with provider.new_key() as key:
        first, second = provider.seal(key), provider.seal(key)
        assert first.wrapped != second.wrapped
        assert bytes(key.view) not in msgspec.json.encode(first)
        with provider.unseal(first) as again:
            assert again.view == key.view
    assert provider.changed(first) == ()


def test_wrong_passphrase_opens_nothing() -> None:
    """And says so."""
    with new_key() as key:
        sealing = PassphraseProvider(_saying("right")).seal(key)
    with pytest.raises(KeyMismatchError, match="passphrase"):
        PassphraseProvider(_saying("wrong")).unseal(sealing)


def test_sealing_that_was_changed_opens_nothing() -> None:
    """One bit is enough."""
    provider = PassphraseProvider(_saying("right"))
    with new_key() as key:
        sealing = provider.seal(key)
    wrapped = bytes([sealing.wrapped[0] ^ 1, *sealing.wrapped[1:]])
    with pytest.raises(KeyMismatchError):
        provider.unseal(msgspec.structs.replace(sealing, wrapped=wrapped))
    with pytest.raises(SealedKeyError, match="key-file"):
        provider.unseal(KeyFileSealing(path="/key"))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A key in a file that nobody else can read."""
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(bytes(range(32)))
    return path


def test_key_file_gives_its_key_and_takes_no_other(key_file: Path) -> None:
    """A sealing only notes the place, so the key must be there already."""
    provider = KeyFileProvider(key_file)
    with provider.new_key() as key:
        sealing = provider.seal(key)
        assert sealing.path == str(key_file)
        with provider.unseal(sealing) as again:
            assert again.view == key.view
    with new_key() as other, pytest.raises(KeyMismatchError, match="another key"):
        provider.seal(other)
    assert provider.changed(sealing) == ()


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), b"text\n"])
def test_key_file_of_another_length_is_refused(key_file: Path, content: bytes) -> None:
    """Whoever wrote it with an editor is told."""
    key_file.write_bytes(content)
    with pytest.raises(KeyMismatchError, match="32"):
        KeyFileProvider(key_file).new_key()


def test_key_file_that_is_missing_or_open_to_others_is_refused(key_file: Path) -> None:
    """As ssh does with its keys."""
    with pytest.raises(SourceNotFoundError):
        KeyFileProvider(key_file.with_name("missing")).new_key()
    key_file.chmod(0o640)
    with pytest.raises(DeniedError, match="0640"):
        KeyFileProvider(key_file).new_key()
