"""The name of a volume: ``<volumeUUID>#<generation>``."""

__all__ = ["VolumeName"]

import re
import uuid
from dataclasses import dataclass
from typing import Self

from cas.errors import InvalidNameError

_NAME = re.compile(
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})#(0|[1-9][0-9]{0,19})",
    re.ASCII,
)
_GENERATIONS = 2**64


@dataclass(frozen=True, slots=True, order=True)
class VolumeName:
    """A volume's identity; ``str()`` gives the directory name and the snapshot key.

    Args:
        uuid: The volume's UUID.
        generation: Counter of the volume's content, 0 to 2**64 - 1.

    Raises:
        InvalidNameError: The generation is out of range.
    """

    uuid: uuid.UUID
    generation: int

    def __post_init__(self) -> None:
        if not 0 <= self.generation < _GENERATIONS:
            raise InvalidNameError(
                f"generation {self.generation} of volume {self.uuid} is no unsigned 64-bit number",
                value=self.generation,
            )

    def __str__(self) -> str:
        return f"{self.uuid}#{self.generation}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse strictly: canonical lower-case UUID, ``#``, decimal without leading zeros.

        Raises:
            InvalidNameError: Anything else.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise InvalidNameError(
                f"volume name {text[:100]!r} is not of the form <lower-case UUID>#<generation>, "
                "for example 7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0",
                value=text[:100],
            )
        return cls(uuid.UUID(match[1]), int(match[2]))
