"""The name of a file between downloader and store: ``<imageUUID>.<claimed sha256>``."""

__all__ = ["TransferName", "image_uuid"]

import re
import uuid
from dataclasses import dataclass
from typing import Self

from cas.errors import InvalidNameError
from cas.model.digest import Digest

_NAME = re.compile(
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.([0-9a-f]{64})", re.ASCII
)


@dataclass(frozen=True, slots=True, order=True)
class TransferName:
    """Whose bytes these are, and what they are said to be; ``str()`` gives the file's name.

    Args:
        image: UUID of the image, or of the single file, that they are fetched for.
        digest: Claimed, and proven by nobody while the file has this name.
    """

    image: uuid.UUID
    digest: Digest

    def __str__(self) -> str:
        return f"{self.image}.{self.digest.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse strictly.

        Raises:
            InvalidNameError: Anything but a canonical UUID, a dot and 64 lower-case hex digits.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            raise InvalidNameError(
                f"{text[:150]!r} is not of the form <imageUUID>.<64 lower-case hex digits>",
                value=text[:150],
            )
        return cls(uuid.UUID(match[1]), Digest(match[2]))


def image_uuid(reference: str) -> uuid.UUID:
    """Give the UUID of an image that nobody has given one: always the same for a reference."""
    return uuid.uuid5(uuid.NAMESPACE_URL, reference)
