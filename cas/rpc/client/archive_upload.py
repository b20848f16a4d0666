"""Archives of images on their way to the service, in pieces of at most 256 KiB.

An image that lies in a directory goes as a tar that is made on the way. Into it comes what the
image's own documents name, found by the rules that hold for reading the directory directly. What
the documents are worth is for the service to judge: one that cannot be read leads no further here.
"""

__all__ = ["Missing", "send_archive"]

import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from cas.errors import IntegrityError, SizeMismatchError
from cas.fsops.translation import translated
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.documents import (
    children,
    parse_docker_archive,
    parse_document,
    parse_layout_index,
)
from cas.model.limits import Limits
from cas.model.media_types import is_index, is_manifest
from cas.model.progress import Progress
from cas.rpc.client.reading import iter_pieces
from cas.rpc.limits import PIECE_BYTES
from cas.store.content.sources import FileSource, Reader, Source, StreamSource
from cas.store.image.archives.archive import (
    INDEX,
    LAYOUT,
    MANIFEST,
    blob_name,
    claimed_digest,
    clean_name,
)
from cas.store.image.archives.directory import DirectoryArchive
from cas.store.image.archives.tar_writer import TarWriter

Missing = Callable[[Iterable[Digest]], Iterable[Digest]]
"""Gives those of the digests that are not there."""


def send_archive(
    source: Path | Reader,
    send: Callable[[bytes], None],
    *,
    origin: str,
    limits: Limits,
    progress: Progress,
    missing: Missing | None = None,
) -> bool:
    """Send an archive of images; one that is unpacked in a directory goes as a tar.

    Args:
        source: A file, an OCI layout or what a docker archive unpacks to, or an open stream.
        send: Takes pieces of at most 256 KiB.
        origin: What messages call a stream.
        limits: What documents may be.
        progress: Told of every chunk.
        missing: Gives those of the digests that the service lacks: blobs of an OCI layout that it
            has are left out then. None sends everything.

    Returns:
        Whether something was left out.

    Raises:
        SourceNotFoundError: Nothing is at the path.
        DeniedError: A file may not be read.
        MalformedArchiveError: A file of a directory lies outside of it.
        SizeMismatchError: A file of a directory changed while it was read.
        StorageError: Reading failed.
    """
    if isinstance(source, Path) and _is_directory(source):
        return _send_directory(source, send, limits, progress, missing)
    whole: Source
    whole = FileSource(source) if isinstance(source, Path) else StreamSource(source, origin)
    with closing(iter_pieces(whole, progress)) as chunks:
        for chunk in chunks:
            send(chunk)
    return False


def _is_directory(path: Path) -> bool:
    with translated("inspect", path, source=True):
        return stat.S_ISDIR(path.stat().st_mode)


def _send_directory(
    path: Path,
    send: Callable[[bytes], None],
    limits: Limits,
    progress: Progress,
    missing: Missing | None,
) -> bool:
    out = _Pieces(send)
    tar = TarWriter(out)
    with DirectoryArchive(path) as archive:
        names = list(dict.fromkeys(_names(archive, limits)))
        needless = _stored(names, missing) if missing is not None else frozenset()
        for name in names:
            file = archive.find(name)
            if file is not None and name not in needless:
                with closing(iter_pieces(file.source(), progress)) as chunks:
                    tar.add_chunks(name, file.size, _exactly(chunks, file.size, name))
    tar.finish()
    out.flush()
    return bool(needless)


def _stored(names: Sequence[str], missing: Missing) -> frozenset[str]:
    """Pick the names of blobs that the service has."""
    blobs = {digest: name for name in names if (digest := claimed_digest(name)) is not None}
    return frozenset(blobs.values()) - {blobs[digest] for digest in missing(blobs)}


class _Pieces:
    """Joins small writes, so that they travel in one message."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes, /) -> None:
        if self._size + len(data) > PIECE_BYTES:
            self.flush()
        self._parts.append(data)
        self._size += len(data)

    def flush(self) -> None:
        if self._parts:
            self._send(b"".join(self._parts))
        self._parts, self._size = [], 0


def _names(archive: DirectoryArchive, limits: Limits) -> Iterator[str]:
    """Name the files that belong to the images, documents first; some may not be there."""
    if archive.find(LAYOUT) is not None:
        yield from (LAYOUT, INDEX)
        with suppress(IntegrityError):
            entries = parse_layout_index(_read(archive, INDEX, limits), limits).manifests
            yield from map(blob_name, _blobs(archive, entries, limits))
        return
    yield MANIFEST
    with suppress(IntegrityError):
        for entry in parse_docker_archive(_read(archive, MANIFEST, limits), limits):
            yield from map(clean_name, (entry.config, *entry.layers))


def _blobs(
    archive: DirectoryArchive, roots: tuple[Descriptor, ...], limits: Limits
) -> Iterator[Digest]:
    """Give what the roots reach, each blob once."""
    waiting = deque(roots)
    seen: set[Digest] = set()
    while waiting and len(seen) < limits.archive_members:
        descriptor = waiting.popleft()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        yield descriptor.digest
        if descriptor in roots or _refers_to_others(descriptor):
            waiting.extend(_children(archive, descriptor, limits))


def _refers_to_others(descriptor: Descriptor) -> bool:
    return is_manifest(descriptor.media_type) or is_index(descriptor.media_type)


def _children(
    archive: DirectoryArchive, descriptor: Descriptor, limits: Limits
) -> Iterator[Descriptor]:
    with suppress(IntegrityError):
        raw = _read(archive, blob_name(descriptor.digest), limits)
        document = parse_document(raw, descriptor, limits)
        yield from (child.descriptor for child in children(document))


def _read(archive: DirectoryArchive, name: str, limits: Limits) -> bytes:
    file = archive.find(name)
    return b"" if file is None else file.read(limits.document_bytes)


def _exactly(chunks: Iterator[bytes], size: int, name: str) -> Iterator[bytes]:
    count = 0
    for chunk in chunks:
        count += len(chunk)
        if count > size:
            break
        yield chunk
    if count != size:
        raise SizeMismatchError(
            f"{name!r} had {size} bytes and now has {count} or more: it changes while it is read; "
            "try again when it is complete",
            expected=size,
            actual=count,
        )
