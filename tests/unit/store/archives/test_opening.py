"""Archives as files by name, whichever way they come."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cas.errors import (
    LimitExceededError,
    MalformedArchiveError,
    SourceNotFoundError,
)
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES, Limits
from cas.store.content.sources import Reader, Source
from cas.store.image.archives.archive import Archive, read_exactly
from cas.store.image.archives.opening import open_archive
from tests.support.images import Compression, write_tar

LIMITS = Limits()
FILES = {
    "oci-layout": b"{}",
    "index.json": b"index",
    "manifest.json": b"manifest",
    "dir/other": b"o" * 3000,
    "empty": b"",
}
LINKS = {"dir/link": "other", "second": "dir/link"}


@dataclass
class MemoryStore:
    """Where members of streams go."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    claims: list[Digest | None] = field(default_factory=list)

    def receive(self, source: Source, claimed: Digest | None, size: int) -> Digest:
        with source.open() as reader:
            data = read_exactly(reader, size + 1)
        assert len(data) == size
        self.claims.append(claimed)
        self.blobs[Digest.of(data)] = data
        return Digest.of(data)

    def read(self, digest: Digest, /, *, offset: int = 0, size: int = 0) -> Iterator[bytes]:
        yield self.blobs[digest][offset : offset + size if size else None]

    def read_all(self, digest: Digest, /, *, limit: int) -> bytes:
        assert len(self.blobs[digest]) <= limit
        return self.blobs[digest]


def make_directory(path: Path) -> Path:
    for name, data in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    for name, target in LINKS.items():
        (path / name).symlink_to(target)
    return path


def make_tar(path: Path, compression: Compression = Compression.NONE) -> Path:
    return write_tar(path, FILES, links=LINKS, compression=compression)


def make_fifo(path: Path) -> Path:
    raw = make_tar(path.with_suffix(".tar")).read_bytes()
    os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(raw,), daemon=True).start()
    return path


KINDS: dict[str, Callable[[Path], Path | Reader]] = {
    "directory": lambda path: make_directory(path / "layout"),
    "tar": lambda path: make_tar(path / "a.tar"),
    "gzip": lambda path: make_tar(path / "a.tgz", Compression.GZIP),
    "zstd": lambda path: make_tar(path / "a.zst", Compression.ZSTD),
    "stream": lambda path: io.BytesIO(make_tar(path / "a.tar").read_bytes()),
    "gzip stream": lambda path: io.BytesIO(make_tar(path / "a.tar", Compression.GZIP).read_bytes()),
    "fifo": lambda path: make_fifo(path / "fifo"),
}


def open_with(source: Path | Reader, limits: Limits = LIMITS) -> Archive:
    store = MemoryStore()
    return open_archive(source, limits, receive=store.receive, content=store)


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_find_in_every_kind_of_archive_gives_the_same(
    make: Callable[[Path], Path | Reader], tmp_path: Path
) -> None:
    """Directories, tars and streams answer alike, through links too."""
    with open_with(make(tmp_path)) as archive:
        for name, data in FILES.items():
            file = archive.find(name)
            assert file is not None
            assert file.size == len(data)
            assert file.read(4000) == data
            assert file.head(6) == data[:6]
        linked = archive.find("second")
        assert linked is not None
        assert linked.read(4000) == FILES["dir/other"]
        for absent in ("absent", "dir", "", "empty/below", "x" * 5000, "a\0b", "\ud800"):
            assert archive.find(absent) is None


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_read_above_the_limit_is_refused(
    make: Callable[[Path], Path | Reader], tmp_path: Path
) -> None:
    """No file is read beyond what the caller allows."""
    with open_with(make(tmp_path)) as archive:
        file = archive.find("dir/other")
        assert file is not None
        with pytest.raises(LimitExceededError):
            file.read(2999)


def test_stream_members_are_received_with_the_digest_they_claim(tmp_path: Path) -> None:
    """Only names of OCI blobs claim a digest."""
    data = b"blob"
    name = f"blobs/sha256/{Digest.of(data).hex}"
    tar = write_tar(tmp_path / "a.tar", {"x/layer.tar": b"layer", name: data, name + "0": data})
    store = MemoryStore()
    stream = io.BytesIO(tar.read_bytes())
    with open_archive(stream, LIMITS, receive=store.receive, content=store) as archive:
        file = archive.find(name)
    assert store.claims == [None, Digest.of(data), None]
    assert file is not None
    assert file.digest == Digest.of(data)


def test_stream_document_above_the_limit_is_refused(tmp_path: Path) -> None:
    """What stays in memory is bounded."""
    tar = write_tar(tmp_path / "a.tar", {"index.json": bytes(LIMITS.document_bytes + 1)})
    with pytest.raises(LimitExceededError):
        open_with(io.BytesIO(tar.read_bytes()))


def test_stream_is_read_to_its_end(tmp_path: Path) -> None:
    """A writer that pads its tar is not cut off."""
    raw = make_tar(tmp_path / "a.tar").read_bytes() + bytes(100_000)
    stream = io.BytesIO(raw)
    open_with(stream)
    assert stream.read() == b""


def test_later_member_hides_an_earlier_of_the_same_name(tmp_path: Path) -> None:
    """As if the tar were unpacked."""
    first = write_tar(tmp_path / "1.tar", {"index.json": b"old", "x": b"old"}).read_bytes()
    second = write_tar(tmp_path / "2.tar", {"index.json": b"new"}, links={"x": "index.json"})
    joined = tmp_path / "both.tar"
    joined.write_bytes(first.rstrip(b"\0").ljust(-(-len(first.rstrip(b"\0")) // 512) * 512, b"\0"))
    joined.write_bytes(joined.read_bytes() + second.read_bytes())
    for source in (joined, io.BytesIO(joined.read_bytes())):
        with open_with(source) as archive:
            for name in ("index.json", "x"):
                file = archive.find(name)
                assert file is not None
                assert file.read(10) == b"new"


@pytest.mark.parametrize("make", ["tar", "stream"])
def test_links_in_a_circle_are_refused(make: str, tmp_path: Path) -> None:
    """A circle of links is an error, not an endless loop."""
    tar = write_tar(tmp_path / "a.tar", {"x": b""}, links={"a": "b", "b": "a", "self": "self"})
    source = tar if make == "tar" else io.BytesIO(tar.read_bytes())
    with open_with(source) as archive:
        for name in ("a", "self"):
            with pytest.raises(MalformedArchiveError, match="circle"):
                archive.find(name)


def test_directory_link_leading_out_is_refused_unless_named_by_digest(tmp_path: Path) -> None:
    """A hostile directory cannot make us read other files; verified blobs may lie elsewhere."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    layout = make_directory(tmp_path / "layout")
    (layout / "leak").symlink_to(outside)
    (layout / "blobs/sha256").mkdir(parents=True)
    blob = f"blobs/sha256/{Digest.of(b'secret').hex}"
    (layout / blob).symlink_to(outside)
    with open_with(layout) as archive:
        with pytest.raises(MalformedArchiveError, match="leads out"):
            archive.find("leak")
        found = archive.find(blob)
        assert found is not None
        assert found.read(10) == b"secret"


def test_directory_special_files_are_not_opened(tmp_path: Path) -> None:
    """A pipe in the directory does not make us wait."""
    layout = make_directory(tmp_path / "layout")
    os.mkfifo(layout / "pipe")
    (layout / "loop").symlink_to("loop")
    with open_with(layout) as archive:
        assert archive.find("pipe") is None
        with pytest.raises(MalformedArchiveError):
            archive.find("loop")


@pytest.mark.parametrize(
    "data", [b"", b"x", b"no archive" * 100, bytes(10_000), b"\x1f\x8bgarbage" * 100]
)
def test_open_other_content_is_no_archive(data: bytes, tmp_path: Path) -> None:
    """What is no archive is refused by file and by stream."""
    path = tmp_path / "file"
    path.write_bytes(data)
    for source in (path, io.BytesIO(data)):
        with pytest.raises(MalformedArchiveError):
            open_with(source)


def test_open_compressed_other_content_is_no_archive(tmp_path: Path) -> None:
    """Compression alone makes no archive."""
    path = tmp_path / "file"
    with pytest.raises(MalformedArchiveError, match="no archive"):
        open_with(io.BytesIO(__import__("gzip").compress(b"text")))
    with pytest.raises(SourceNotFoundError):
        open_with(path)


def test_open_truncated_tar_is_noticed_at_once(tmp_path: Path) -> None:
    """The index of members shows a cut in the last one."""
    path = write_tar(tmp_path / "a.tar", {"a": b"x" * (2 * CHUNK_BYTES)})
    os.truncate(path, CHUNK_BYTES)
    with pytest.raises(MalformedArchiveError, match="truncated"):
        open_with(path)
