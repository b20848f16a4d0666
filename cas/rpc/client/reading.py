"""The bytes of a source on their way to the service, in chunks of at most 1 MiB."""

__all__ = ["iter_chunks"]

from collections.abc import Generator

from cas.model.limits import CHUNK_BYTES
from cas.model.progress import Progress
from cas.store.content.sources import Source

_ACTION = "upload"


def iter_chunks(source: Source, progress: Progress) -> Generator[bytes, None, None]:
    """Read a source to its end.

    Yields:
        Chunks of at most 1 MiB.

    Raises:
        SourceNotFoundError: There is no such file.
        DeniedError: It may not be read.
        UsageError: It is a directory.
        StorageError: Reading failed.
    """
    progress.start(_ACTION, source.name, source.size_hint)
    try:
        with source.open() as reader:
            while chunk := reader.read(CHUNK_BYTES):
                yield chunk
                progress.advance(_ACTION, source.name, len(chunk))
    finally:
        progress.finish(_ACTION, source.name)
