"""Digests and chain IDs."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import InvalidNameError
from cas.model.digest import ChainID, DiffID, Digest, chain_ids

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.binary(max_size=64))
def test_digest_of_any_bytes_round_trips(data: bytes) -> None:
    """Printing and parsing give the same value, which is the sha256."""
    digest = Digest.of(data)

    assert Digest.parse(str(digest)) == digest
    assert digest.hex == hashlib.sha256(data).hexdigest()


@given(st.text(max_size=90))
def test_digest_parse_of_garbage_raises_only_invalid_name(text: str) -> None:
    """Whatever is not a digest is an invalid name and nothing else."""
    with pytest.raises(InvalidNameError):
        Digest.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{EMPTY.upper()}",
        EMPTY,
        f"sha512:{EMPTY}",
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY}\n",
        f" sha256:{EMPTY}",
        f"sha256:{EMPTY[:-1]}\N{FULLWIDTH DIGIT FIVE}",
    ],
)
def test_digest_parse_of_near_misses_is_refused(text: str) -> None:
    """Other case, algorithm, length and look-alike digits are refused."""
    with pytest.raises(InvalidNameError):
        Digest.parse(text)


@pytest.mark.parametrize("text", [EMPTY, EMPTY.upper(), f"SHA256:{EMPTY}", f"sha256:{EMPTY}"])
def test_digest_parse_foreign_normalises_old_forms(text: str) -> None:
    """What the old world writes becomes the canonical form."""
    assert str(Digest.parse_foreign(text)) == f"sha256:{EMPTY}"


def test_digest_and_diff_id_of_same_bytes_differ_as_values() -> None:
    """A diff ID is never equal to a blob's digest."""
    digest: object = Digest(EMPTY)
    assert digest != DiffID(EMPTY)


def test_chain_ids_follow_the_specification() -> None:
    """The first chain ID is the first diff ID; each next one hashes the pair as text."""
    first, second = DiffID("1" * 64), DiffID("2" * 64)
    pair = f"sha256:{'1' * 64} sha256:{'2' * 64}".encode()

    assert chain_ids([]) == []
    assert chain_ids([first, second]) == [
        ChainID("1" * 64),
        ChainID(hashlib.sha256(pair).hexdigest()),
    ]
