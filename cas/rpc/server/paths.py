"""Which files a caller may name: the service reads with more rights than its callers have."""

__all__ = ["AllowedPaths"]

from collections.abc import Sequence
from pathlib import Path

from cas.errors import DeniedError, InvalidNameError

_MAX_PATH_BYTES = 4096


class AllowedPaths:
    """Paths below certain directories.

    Args:
        directories: Those directories, absolute. Whoever may write there must not be able to lead
            the service elsewhere, so the library is told to follow no links below them.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self.directories = tuple(dict.fromkeys(directories))

    def locate(self, text: str) -> tuple[Path, Path]:
        """Give a path from a request, and the directory that it must lie below.

        Raises:
            InvalidNameError: It is no absolute path.
            DeniedError: It is not below any of the directories.
        """
        path = Path(text)
        if not path.is_absolute() or "\0" in text or len(text.encode()) > _MAX_PATH_BYTES:
            raise InvalidNameError(
                f"path {text[:200]!r} is not an absolute path of at most {_MAX_PATH_BYTES} bytes",
                value=text[:200],
            )
        for directory in self.directories:
            if ".." not in path.parts and path != directory and path.is_relative_to(directory):
                return path, directory
        allowed = ", ".join(repr(str(directory)) for directory in self.directories)
        raise DeniedError(
            f"the service reads no files outside of {allowed}; {text[:200]!r} is not below: put it "
            "there, or send its bytes",
            path=text[:200],
        )
