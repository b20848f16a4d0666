"""Finds out what kind of archive something is, and opens it."""

__all__ = ["open_archive"]

import stat
from pathlib import Path

from cas.errors import MalformedArchiveError, UsageError
from cas.fsops.beneath import inspect
from cas.model.limits import Limits
from cas.store.content.sources import FileSource, Reader, StreamSource
from cas.store.image.archives.archive import Archive, read_exactly
from cas.store.image.archives.decompression import Decompressed, PrefixReader, decompressor_for
from cas.store.image.archives.directory import DirectoryArchive
from cas.store.image.archives.tar_file import TarFileArchive
from cas.store.image.archives.tar_reader import looks_like_tar
from cas.store.image.archives.tar_stream import Receive, StreamArchive
from cas.store.ports import BlobReader

_HEAD_BYTES = 512


def open_archive(
    source: Path | Reader,
    limits: Limits,
    *,
    receive: Receive,
    content: BlobReader,
    origin: str = "the input stream",
    beneath: Path | None = None,
) -> Archive:
    """Open a directory, a tar, or a tar that is compressed with gzip, zstd, bzip2 or xz.

    A directory and a plain tar on disk are left where they are. Everything else is read to its
    end here, once, and its members are handed to ``receive`` as they come.

    Args:
        source: A path, or something to read from such as standard input.
        limits: What an archive may be.
        receive: Puts a member into the store.
        content: Where the received members are afterwards.
        origin: What messages call a stream.
        beneath: A directory that a path must lie below; no symbolic link is followed then.

    Raises:
        SourceNotFoundError: Nothing is at the path.
        DeniedError: It may not be read, or is not below ``beneath``.
        UsageError: It is a device or the like, and ``beneath`` is given.
        MalformedArchiveError: It is none of these, or damaged, or truncated.
        LimitExceededError: It is larger than allowed or expands beyond the limit.
        CasError: Whatever ``receive`` raises.
    """
    if not isinstance(source, Path):
        with StreamSource(source, origin).open() as reader:
            return _read_stream(reader, origin, limits, receive, content)
    mode = inspect(source, beneath).st_mode
    if stat.S_ISDIR(mode):
        return DirectoryArchive(source, beneath=beneath)
    if not stat.S_ISREG(mode) and beneath is not None:
        raise UsageError(f"{str(source)!r} is neither a file nor a directory", path=source)
    with FileSource(source, beneath=beneath).open() as reader:
        if not stat.S_ISREG(mode):
            return _read_stream(reader, repr(str(source)), limits, receive, content)
        head = read_exactly(reader, _HEAD_BYTES)
        if decompressor_for(head) is not None:
            rest = PrefixReader(head, reader)
            return _read_stream(rest, repr(str(source)), limits, receive, content)
    _require_tar(head, repr(str(source)))
    return TarFileArchive(source, limits, beneath=beneath)


def _read_stream(
    reader: Reader, origin: str, limits: Limits, receive: Receive, content: BlobReader
) -> StreamArchive:
    head = read_exactly(reader, _HEAD_BYTES)
    stream: Reader = PrefixReader(head, reader)
    make = decompressor_for(head)
    if make is not None:
        inside = Decompressed(stream, make, origin, limits)
        head = read_exactly(inside, _HEAD_BYTES)
        stream = PrefixReader(head, inside)
    _require_tar(head, origin)
    return StreamArchive(stream, origin, limits, receive=receive, content=content)


def _require_tar(head: bytes, origin: str) -> None:
    if not looks_like_tar(head):
        what = "no archive of an image" if head else "empty"
        raise MalformedArchiveError(
            f"{origin} is {what}; an OCI layout (directory or tar) or a docker archive is needed, "
            "plain or compressed with gzip, zstd, bzip2 or xz",
            origin=origin,
        )
