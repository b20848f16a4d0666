"""Sources of bytes."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import DeniedError, SourceNotFoundError, StorageError, UsageError
from cas.store.content.sources import (
    BytesSource,
    ChunkSource,
    FileSource,
    PrefixedSource,
    SliceSource,
    Source,
    StreamSource,
)

DATA = bytes(range(256)) * 10


def read(source: Source, offset: int = 0, size: int = 100) -> bytes:
    with source.open(offset) as reader:
        chunks = list(iter(lambda: reader.read(size), b""))
    assert all(len(chunk) <= size for chunk in chunks)
    return b"".join(chunks)


def file_source(directory: Path) -> Source:
    (directory / "f").write_bytes(DATA)
    return FileSource(directory / "f")


def slice_source(directory: Path) -> Source:
    (directory / "f").write_bytes(b"before" + DATA + b"after")
    return SliceSource(directory / "f", 6, len(DATA))


def bytes_source(directory: Path) -> Source:
    return BytesSource(DATA)


REPEATABLE = [bytes_source, file_source, slice_source]


def stream_source(directory: Path) -> Source:
    return StreamSource(io.BytesIO(DATA), "stream", len(DATA))


def chunk_source(directory: Path) -> Source:
    return ChunkSource(lambda: iter([DATA[:7], b"", DATA[7:]]), "chunks", len(DATA))


def prefixed_source(directory: Path) -> Source:
    return PrefixedSource(DATA[:7], io.BytesIO(DATA[7:]), BytesSource(DATA))


ONCE = [stream_source, chunk_source, prefixed_source]
Maker = Callable[[Path], Source]


@pytest.mark.parametrize("make", REPEATABLE + ONCE)
@pytest.mark.parametrize("size", [1, 100, 1_000_000])
def test_source_gives_all_bytes_and_knows_their_number(
    make: Maker, size: int, tmp_path: Path
) -> None:
    """Whatever it is, its bytes come whole and in order, in chunks no larger than asked."""
    source = make(tmp_path)
    assert source.size_hint == len(DATA)
    assert source.name
    assert read(source, size=size) == DATA


@pytest.mark.parametrize("make", REPEATABLE)
@pytest.mark.parametrize("offset", [0, 1, len(DATA) - 1, len(DATA)])
def test_source_repeatable_can_be_read_again_from_anywhere(
    make: Maker, offset: int, tmp_path: Path
) -> None:
    """Each opening begins where it is told."""
    source = make(tmp_path)
    assert source.repeatable
    assert read(source) == DATA
    assert read(source, offset) == DATA[offset:]


@pytest.mark.parametrize("make", ONCE)
def test_source_of_one_reading_refuses_an_offset(make: Maker, tmp_path: Path) -> None:
    """It cannot be wound forward without being read."""
    source = make(tmp_path)
    assert not source.repeatable
    with pytest.raises(StorageError), source.open(1):
        pass


def test_stream_goes_on_where_it_stands() -> None:
    """Opening a stream again does not rewind it."""
    source = StreamSource(io.BytesIO(DATA), "stream")
    with source.open() as reader:
        assert reader.read(10) == DATA[:10]
    assert read(source) == DATA[10:]


@given(st.lists(st.binary(max_size=20), max_size=10), st.integers(1, 30))
def test_chunks_of_any_size_are_cut_and_joined(chunks: list[bytes], size: int) -> None:
    """An empty chunk in the middle is not the end."""

    def make() -> Iterator[bytes]:
        yield from chunks

    assert read(ChunkSource(make, "chunks"), size=size) == b"".join(chunks)


def test_file_missing_is_a_missing_source(tmp_path: Path) -> None:
    """Both the question for the size and the opening say so."""
    source = FileSource(tmp_path / "missing")
    with pytest.raises(SourceNotFoundError, match="missing"):
        _ = source.size_hint
    with pytest.raises(SourceNotFoundError), source.open():
        pass
    with pytest.raises(SourceNotFoundError), SliceSource(tmp_path / "missing", 0, 1).open():
        pass


def test_file_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    """A directory has no bytes."""
    with pytest.raises(UsageError):
        _ = FileSource(tmp_path).size_hint


def test_file_that_cannot_be_read_is_reported_by_name(tmp_path: Path) -> None:
    """The error of a read names the file."""
    source = FileSource(Path("/proc/self/mem"))
    with source.open() as reader, pytest.raises(StorageError, match="/proc/self/mem"):
        reader.read(1)


def test_stream_that_fails_is_reported_by_name() -> None:
    """What the stream raises becomes an error of ours."""

    class Failing:
        def read(self, size: int) -> bytes:
            raise PermissionError(1, "no")

    with StreamSource(Failing(), "pipe").open() as reader, pytest.raises(DeniedError, match="pipe"):
        reader.read(1)


def test_device_has_no_size_and_one_reading() -> None:
    """Only regular files promise their bytes twice."""
    source = FileSource(Path("/dev/zero"))
    assert source.size_hint is None
    assert not source.repeatable


def test_slice_ends_with_the_file(tmp_path: Path) -> None:
    """A range beyond the end gives what there is; its size is for the reader to compare."""
    (tmp_path / "f").write_bytes(DATA)
    source = SliceSource(tmp_path / "f", 10, 10 * len(DATA))
    assert source.size_hint == 10 * len(DATA)
    assert read(source) == DATA[10:]


def open_descriptors() -> list[str]:
    # The one that lists them is closed by then.
    entries = [entry.name for entry in Path("/proc/self/fd").iterdir()]
    return [name for name in entries if Path("/proc/self/fd", name).is_symlink()]


def test_descriptors_are_closed(tmp_path: Path) -> None:
    """Opened files are closed with the context, whatever ended it."""
    source = file_source(tmp_path)
    before = open_descriptors()
    read(source)
    with pytest.raises(KeyboardInterrupt), source.open():
        raise KeyboardInterrupt
    # Something of an earlier test may be closed meanwhile.
    assert set(open_descriptors()) <= set(before)


def test_file_read_is_removed_once(tmp_path: Path) -> None:
    """The file that was read goes; a second call finds nothing."""
    (tmp_path / "f").write_bytes(DATA)
    source = FileSource(tmp_path / "f")
    read(source)
    assert source.remove()
    assert not (tmp_path / "f").exists()
    assert not source.remove()


@pytest.mark.parametrize("change", ["unread", "replaced", "written", "link"])
def test_file_that_is_not_what_was_read_stays(tmp_path: Path, change: str) -> None:
    """A name is removed only while it is the very file that was read, unchanged."""
    path = tmp_path / "f"
    path.write_bytes(DATA)
    if change == "link":
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    source = FileSource(path)
    if change != "unread":
        read(source)
    if change == "replaced":
        (tmp_path / "other").write_bytes(DATA)
        (tmp_path / "other").replace(path)
    elif change == "written":
        path.write_bytes(DATA)
    assert not source.remove()
    assert path.read_bytes() == DATA
