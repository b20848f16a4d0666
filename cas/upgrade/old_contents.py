"""The blobs of an old store, seen together with those of the store that they go into."""

__all__ = ["OldContents"]

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from cas.errors import BlobNotFoundError, DigestMismatchError, InvalidNameError
from cas.fsops.reading import open_regular
from cas.fsops.translation import translated
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.store.backing import Backing
from cas.store.content.blob_files import BlobFiles
from cas.store.image.contents import StoreContents

_BLOBS = Path("io.containerd.content.v1.content", "blobs", "sha256")
_SNAPSHOTS = "io.containerd.snapshotter.v1.*/snapshots/*"


class OldContents:
    """Where the documents of an old store's images are looked for.

    What the store has by now is believed first: a blob goes from the old one when it is taken in.

    Args:
        root: containerd's old root.
        backing: The store.
        labels: Of the old one's blobs.
    """

    def __init__(
        self,
        root: Path,
        backing: Backing,
        labels: Mapping[Digest, Mapping[str, str]] = MappingProxyType({}),
    ) -> None:
        self._root = root
        self._backing = backing
        self._labels = labels
        self._directory = root / _BLOBS
        self._store = StoreContents(backing)
        self._files = BlobFiles(backing)
        self._limit = backing.limits.document_bytes

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is in either.

        Raises:
            SizeMismatchError: The store has it with another size.
        """
        return self._store.has(descriptor) or _is_blob(self.path(descriptor.digest))

    def read(self, descriptor: Descriptor) -> bytes:
        """Give a document.

        Raises:
            DigestMismatchError: The old store has other bytes under this digest.
            CorruptBlobError: The store has.
            SourceNotFoundError: It is in neither.
        """
        path = self.path(descriptor.digest)
        if self._store.has(descriptor) and not (self._is_lost(descriptor) and _is_blob(path)):
            return self._store.read(descriptor)
        raw = bytearray()
        with open_regular(path) as file:
            for chunk in file.chunks():
                raw += chunk[: self._limit + 1 - len(raw)]
                if len(raw) > self._limit:
                    break
        actual = Digest.of(bytes(raw))
        if actual != descriptor.digest:
            raise DigestMismatchError(
                f"{str(path)!r} has the digest {actual}, expected {descriptor.digest}; let the "
                "image be downloaded again",
                expected=descriptor.digest,
                actual=actual,
            )
        return bytes(raw)

    def _is_lost(self, descriptor: Descriptor) -> bool:
        """Whether a power cut has left the store the blob's record alone, which ingest replaces."""
        return self._files.lies_there(descriptor.digest, descriptor.size) is False

    def labels(self, digest: Digest) -> dict[str, str]:
        """Give the labels that a blob is to bring along: those whose keys the store's lacks."""
        labels = self._labels.get(digest, {})
        try:
            known = self._backing.content.info(digest).labels if labels else {}
        except BlobNotFoundError:
            known = {}
        return {key: text for key, text in labels.items() if key not in known}

    def path(self, digest: Digest) -> Path:
        """Tell where the old store has a blob, or had it."""
        return self._directory / digest.hex

    def files(self) -> Iterator[Path]:
        """Give the blobs that the old store still has, by name.

        Raises:
            StorageError: They cannot be listed.
        """
        with translated("list", self._directory):
            found = self._directory.is_dir()
            paths = sorted(self._directory.iterdir()) if found else []
        return (path for path in paths if _is_blob(path))

    def snapshot_directories(self) -> Iterator[Path]:
        """Give the directories of snapshots, of whatever snapshotter."""
        return self._root.glob(_SNAPSHOTS)


def _is_blob(path: Path) -> bool:
    try:
        Digest(path.name)
    except InvalidNameError:
        return False
    return path.is_file() and not path.is_symlink()
