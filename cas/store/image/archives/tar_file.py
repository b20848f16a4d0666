"""An uncompressed tar on disk: an index of its members, whose content is read where it lies."""

__all__ = ["TarFileArchive", "follow_links"]

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cas.errors import MalformedArchiveError
from cas.fsops.beneath import open_source
from cas.fsops.translation import translated
from cas.model.limits import Limits
from cas.store.content.sources import SliceSource
from cas.store.image.archives.archive import ArchiveFile, SourceFile
from cas.store.image.archives.tar_reader import MemberKind, TarMember, TarReader

_MAX_LINKS = 40  # as the kernel
_BUFFER_BYTES = 64 * 1024


def follow_links(name: str, links: Mapping[str, str], origin: str) -> str:
    """Give the name at the end of a chain of links.

    Raises:
        MalformedArchiveError: The chain is a circle or too long.
    """
    for _ in range(_MAX_LINKS):
        if name not in links:
            return name
        name = links[name]
    raise MalformedArchiveError(f"links of {origin} lead in a circle at {name[:200]!r}", name=name)


class TarFileArchive:
    """Reads members of a tar; members of one name hide those before.

    Args:
        path: The tar; read once from start to end at construction, contents skipped.
        limits: What it may be.
        beneath: See :class:`cas.store.content.sources.FileSource`.

    Raises:
        MalformedArchiveError: It is no tar, or truncated.
        LimitExceededError: It has too many members.
    """

    def __init__(self, path: Path, limits: Limits, *, beneath: Path | None = None) -> None:
        self.origin = repr(str(path))
        self._path = path
        self._beneath = beneath
        self._files: dict[str, TarMember] = {}
        self._links: dict[str, str] = {}
        stream = os.fdopen(open_source(path, beneath), "rb", buffering=_BUFFER_BYTES)
        with stream, translated("read", path):
            size = os.fstat(stream.fileno()).st_size

            def skip(amount: int) -> None:
                if stream.tell() + amount > size:
                    raise MalformedArchiveError(
                        f"{self.origin} is truncated: it ends after {size} bytes in the middle "
                        "of a member; get it again",
                        offset=size,
                    )
                stream.seek(amount, os.SEEK_CUR)

            for member in TarReader(stream, self.origin, limits, skip=skip):
                self._add(member)

    def _add(self, member: TarMember) -> None:
        self._files.pop(member.name, None)
        self._links.pop(member.name, None)
        if member.kind is MemberKind.FILE:
            self._files[member.name] = member
        elif member.kind is MemberKind.LINK:
            self._links[member.name] = member.target

    def find(self, name: str) -> ArchiveFile | None:
        """Give the member; see :class:`cas.store.image.archives.archive.Archive`."""
        member = self._files.get(follow_links(name, self._links, self.origin))
        if member is None:
            return None
        what = f"{member.name!r} of {self.origin}"
        content = SliceSource(
            self._path, member.offset, member.size, name=what, beneath=self._beneath
        )
        return SourceFile(member.size, content)

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
