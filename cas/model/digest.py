"""Digests of content; a layer below everything that stores or reads.

The three kinds of sha256 values that the field keeps apart have three types here, so that a diff
ID can't be used where a blob is meant. Only sha256 exists: containerd before 2.3 knows no other.
"""

__all__ = ["ChainID", "DiffID", "Digest", "chain_ids"]

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cas.errors import InvalidNameError

_PREFIX = "sha256:"
_CANONICAL_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class _Sha256:
    """A sha256; ``str()`` gives ``sha256:<64 lower-case hex>``.

    Args:
        hex: 64 lower-case hexadecimal digits.

    Raises:
        InvalidNameError: ``hex`` is anything else.
    """

    hex: str

    def __post_init__(self) -> None:
        if _CANONICAL_HEX.fullmatch(self.hex) is None:
            raise InvalidNameError(
                f"digest {self.hex[:100]!r} is not 64 lower-case hexadecimal digits",
                value=self.hex[:100],
            )

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the canonical form strictly.

        Raises:
            InvalidNameError: Another algorithm, length, case or alphabet.

        Source: OCI image specification, descriptor, "Digests".
        """
        if not text.startswith(_PREFIX):
            raise InvalidNameError(
                f"digest {text[:100]!r} is not of the form sha256:<64 lower-case hex digits>",
                value=text[:100],
            )
        return cls(text[len(_PREFIX) :])

    @classmethod
    def parse_foreign(cls, text: str) -> Self:
        """Parse what the old world writes: bare hex and upper case are accepted and normalised.

        Raises:
            InvalidNameError: It is no sha256 even so.
        """
        bare = text[7:] if text[:7].lower() == "sha256:" else text
        if _HEX.fullmatch(bare) is None:
            raise InvalidNameError(f"{text[:100]!r} is not a sha256", value=text[:100])
        return cls(bare.lower())

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Hash bytes that are in memory."""
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def short(self) -> str:
        """The first 12 hex digits, for tables on a terminal; never for look-ups."""
        return self.hex[:12]


@dataclass(frozen=True, slots=True, order=True)
class Digest(_Sha256):
    """The sha256 of a blob's bytes, under which the store keeps it."""


@dataclass(frozen=True, slots=True, order=True)
class DiffID(_Sha256):
    """The sha256 of a layer's uncompressed tar."""


@dataclass(frozen=True, slots=True, order=True)
class ChainID(_Sha256):
    """The identity of a stack of layers, which is also the name of its committed snapshot."""


def chain_ids(diff_ids: Iterable[DiffID]) -> list[ChainID]:
    """Compute the chain ID of every prefix of a stack of layers, bottom first.

    Returns:
        One chain ID per diff ID: ``result[i]`` names layers 0 to ``i``.

    Source: OCI image specification, config, "Layer ChainID".
    """
    chain: list[ChainID] = []
    for diff_id in diff_ids:
        if chain:
            text = f"{chain[-1]} {diff_id}"
            chain.append(ChainID(hashlib.sha256(text.encode("ascii")).hexdigest()))
        else:
            chain.append(ChainID(diff_id.hex))
    return chain
