"""The bytes of a source on their way to the service, in pieces of at most 256 KiB."""

__all__ = ["iter_pieces"]

from collections.abc import Generator

from cas.model.progress import Progress
from cas.rpc.limits import PIECE_BYTES
from cas.store.content.sources import Source

_ACTION = "upload"


def iter_pieces(source: Source, progress: Progress) -> Generator[bytes, None, None]:
    """Read a source to its end.

    Yields:
        Pieces of at most 256 KiB.

    Raises:
        SourceNotFoundError: There is no such file.
        DeniedError: It may not be read.
        UsageError: It is a directory.
        StorageError: Reading failed.
    """
    progress.start(_ACTION, source.name, source.size_hint)
    try:
        with source.open() as reader:
            while piece := reader.read(PIECE_BYTES):
                yield piece
                progress.advance(_ACTION, source.name, len(piece))
    finally:
        progress.finish(_ACTION, source.name)
