"""What the client sends of files, streams and directories."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from cas.errors import SizeMismatchError, SourceNotFoundError
from cas.model.limits import Limits
from cas.model.progress import NO_PROGRESS
from cas.rpc.client.archive_upload import send_archive
from cas.rpc.client.reading import iter_pieces
from cas.rpc.limits import PIECE_BYTES
from cas.store.content.sources import FileSource
from tests.support.images import (
    BuiltImage,
    build_image,
    build_index,
    docker_archive_documents,
    layered_image,
)
from tests.support.layers import Compression, file


def _sent(source: Path | io.BytesIO) -> list[bytes]:
    chunks: list[bytes] = []
    send_archive(source, chunks.append, origin="it", limits=Limits(), progress=NO_PROGRESS)
    return chunks


def _members(directory: Path) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(_sent(directory)))) as tar:
        return {name: _content(tar, name) for name in tar.getnames()}


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    assert member is not None
    return member.read()


def _two_platforms() -> BuiltImage:
    return build_index(
        [
            build_image([[file("f", platform.encode())]], platform=platform)
            for platform in ("linux/amd64", "linux/arm64")
        ]
    )


@pytest.mark.parametrize("image", [layered_image(3), _two_platforms()], ids=["one", "index"])
def test_layout_directory_is_sent_as_a_tar_of_its_image(image: BuiltImage, tmp_path: Path) -> None:
    """Documents and blobs come with their bytes, the documents that lead to others first."""
    layout = image.write_oci_layout(tmp_path)

    members = _members(layout)

    assert members == image.oci_members()
    assert list(members)[:2] == ["oci-layout", "index.json"]


def test_layout_directory_sends_nothing_that_its_images_do_not_name(tmp_path: Path) -> None:
    """Blobs of others that lie in the same directory stay where they are."""
    image = layered_image(1)
    layout = layered_image(2, seed="other").write_oci_layout(tmp_path)
    image.write_oci_layout(layout)
    (layout / "notes.txt").write_text("mine")
    (layout / "away").symlink_to("/etc/passwd")

    assert _members(layout) == image.oci_members()


def test_blobs_behind_a_link_are_sent(tmp_path: Path) -> None:
    """Build tools share blobs between layouts by links."""
    image = layered_image(2)
    layout = image.write_oci_layout(tmp_path / "layout")
    (layout / "blobs").rename(tmp_path / "shared")
    (layout / "blobs").symlink_to(tmp_path / "shared")

    assert _members(layout) == image.oci_members()


def test_unpacked_docker_archive_is_sent_as_a_tar(tmp_path: Path) -> None:
    """The files that manifest.json names, and it."""
    members = docker_archive_documents([layered_image(2)])
    for name, data in members.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "unrelated").write_bytes(b"x")

    assert _members(tmp_path) == members


@pytest.mark.parametrize("index", [b"", b"{", b'{"schemaVersion": 2, "manifests": [{}]}'])
def test_layout_directory_that_makes_no_sense_is_sent_for_judgement(
    index: bytes, tmp_path: Path
) -> None:
    """It is the service that says what is wrong with it."""
    layout = layered_image(1).write_oci_layout(tmp_path)
    (layout / "index.json").write_bytes(index)

    assert list(_members(layout)) == ["oci-layout", "index.json"]


def test_image_with_holes_is_sent_without_what_is_missing(tmp_path: Path) -> None:
    """The store may have it."""
    image = layered_image(2)
    whole = image.without(image.layers[0].digest)

    assert _members(whole.write_oci_layout(tmp_path)) == whole.oci_members()


def test_nothing_larger_than_a_chunk_is_sent_at_once(tmp_path: Path) -> None:
    """Memory and messages are bounded, and small files share a message."""
    image = build_image(
        [[file("large", os.urandom(3 * PIECE_BYTES + 17))], [file("small", b"x")]],
        compression=Compression.NONE,
    )

    sizes = list(map(len, _sent(image.write_oci_layout(tmp_path))))

    assert max(sizes) <= PIECE_BYTES
    assert len(sizes) < 10


def test_file_that_shrinks_while_it_is_sent_is_refused(tmp_path: Path) -> None:
    """A tar that tells a wrong size would shift everything after it."""
    image = build_image(
        [[file("large", os.urandom(4 * PIECE_BYTES))]], compression=Compression.NONE
    )
    layout = image.write_oci_layout(tmp_path)
    blob = layout / "blobs/sha256" / image.layers[0].digest.removeprefix("sha256:")

    def shrink(chunk: bytes) -> None:
        if len(chunk) == PIECE_BYTES:
            os.truncate(blob, PIECE_BYTES)

    with pytest.raises(SizeMismatchError, match="changes while it is read"):
        send_archive(layout, shrink, origin="it", limits=Limits(), progress=NO_PROGRESS)


def test_stream_and_file_are_sent_as_they_are(tmp_path: Path) -> None:
    """What they hold is the service's to find out."""
    data = os.urandom(PIECE_BYTES + 5)
    path = tmp_path / "archive"
    path.write_bytes(data)

    assert b"".join(_sent(io.BytesIO(data))) == data
    assert list(map(len, _sent(path))) == [PIECE_BYTES, 5]


def test_missing_archive_is_not_found(tmp_path: Path) -> None:
    """Before anything is sent."""
    with pytest.raises(SourceNotFoundError):
        _sent(tmp_path / "missing")


def test_upload_of_a_file_tells_its_progress(tmp_path: Path) -> None:
    """Each chunk counts when somebody has taken it, and the end is told."""
    path = tmp_path / "file"
    path.write_bytes(bytes(PIECE_BYTES + 1))
    told: list[tuple[object, ...]] = []

    class _Watcher:
        def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
            told.append((action, item, total, unit))

        def advance(self, action: str, item: str, amount: int) -> None:
            told.append((action, item, amount))

        def finish(self, action: str, item: str) -> None:
            told.append((action, item))

    for _ in iter_pieces(FileSource(path), _Watcher()):
        pass

    name = repr(str(path))
    assert told == [
        ("upload", name, PIECE_BYTES + 1, "B"),
        ("upload", name, PIECE_BYTES),
        ("upload", name, 1),
        ("upload", name),
    ]
