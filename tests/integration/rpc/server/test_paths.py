"""Files that callers name: read where the configuration allows, and nowhere else."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from cas._gen.cas.v1 import blobs_pb2, images_pb2, types_pb2
from cas.errors import CasError
from cas.fsops.durable import exchange
from cas.model.digest import Digest
from tests.support.images import layered_image
from tests.support.rpc import Service, failing, last
from tests.support.stores import assert_nothing_left, own_blobs

SECRET = b"something that only root may read"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file beside the allowed directory."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def _ingest(service: Service, path: object) -> Any:
    return last(service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path))))


def _move(service: Service, path: object) -> Any:
    return last(service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path), move=True)))


def _import(service: Service, path: object) -> Any:
    return last(service.images.Import(images_pb2.ImportImageRequest(path=str(path))))


def _load(service: Service, path: object) -> Any:
    digest = str(Digest.of(SECRET))
    request = images_pb2.LoadImageRequest(
        name="x",
        target=types_pb2.Descriptor(media_type="x", digest=digest),
        blobs=[images_pb2.LoadBlob(digest=digest, path=str(path))],
    )
    return last(service.images.Load(request))


CALLS = pytest.mark.parametrize("call", [_ingest, _move, _import, _load])


@contextmanager
def _swapping(first: Path, second: Path) -> Iterator[None]:
    """Let two names change places all the time."""
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            with suppress(CasError):  # a moved file is gone
                exchange(first, second)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        done.set()
        swapper.join()


@CALLS
def test_path_outside_of_what_is_allowed_is_denied(
    service: Service, secret: Path, call: Callable[[Service, object], Any]
) -> None:
    """Whichever way it is spelled; the message says what is allowed."""
    allowed = service.allowed
    (allowed / "link").symlink_to(secret)
    (allowed / "way").symlink_to(secret.parent)
    (allowed / "root").symlink_to("/")
    for path in (
        secret,
        allowed / ".." / secret.name,
        f"{allowed}/./../{secret.name}",
        f"{allowed}2/x",
        allowed,
        allowed / "link",
        allowed / "way" / secret.name,
        f"{allowed}/root{secret}",
        "/proc/self/environ",
        f"/proc/self/root{secret}",
        service.case.settings.layout.volumes / "x",
    ):
        with failing(grpc.StatusCode.PERMISSION_DENIED, "denied") as error:
            call(service, path)
        assert str(path)[:100] in (error().details() or "")

    assert secret.read_bytes() == SECRET
    assert own_blobs(service.case.backing) == set()
    assert_nothing_left(service.case.backing)


@CALLS
@pytest.mark.parametrize("swapped", ["file", "directory"])
def test_path_that_is_swapped_for_a_link_again_and_again_never_leads_out(
    service: Service, secret: Path, swapped: str, call: Callable[[Service, object], Any]
) -> None:
    """Whoever may write there has all the time of the call; it is the right file, or an error."""
    directory = service.allowed / "in"
    directory.mkdir()
    (directory / secret.name).write_bytes(b"harmless")
    place = directory if swapped == "directory" else directory / secret.name
    link = service.allowed / "link"
    link.symlink_to(secret.parent if swapped == "directory" else secret)
    with _swapping(place, link):
        for _ in range(15):
            with suppress(grpc.RpcError):
                call(service, directory / secret.name)

    assert secret.read_bytes() == SECRET
    assert not service.case.blobs.exists(Digest.of(SECRET))
    assert_nothing_left(service.case.backing)


@CALLS
@pytest.mark.parametrize("path", ["", "relative", "./x", "~/x", "/x\0y", "/" + "x" * 5000])
def test_path_that_is_none_is_the_callers_mistake(
    service: Service, path: str, call: Callable[[Service, object], Any]
) -> None:
    """It never reaches the file system."""
    with failing(grpc.StatusCode.INVALID_ARGUMENT, "invalid-name"):
        call(service, path)


@CALLS
def test_file_that_is_not_there_is_not_found(
    service: Service, call: Callable[[Service, object], Any]
) -> None:
    """Told from one that may not be read."""
    for name in ("nothing", "nothing/at/all"):
        with failing(grpc.StatusCode.NOT_FOUND, "source-not-found"):
            call(service, service.allowed / name)


@CALLS
def test_what_is_no_file_is_refused_without_waiting(
    service: Service, call: Callable[[Service, object], Any]
) -> None:
    """A pipe would have kept the service waiting for its other end."""
    os.mkfifo(service.allowed / "pipe")
    os.mknod(service.allowed / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    for name in ("pipe", "zero"):
        with failing(grpc.StatusCode.INVALID_ARGUMENT, "usage"):
            call(service, service.allowed / name)


def test_layout_directory_is_imported_without_following_links(
    service: Service, tmp_path: Path
) -> None:
    """As it lies there; a link in it leads nowhere, not even for a blob."""
    image = layered_image(2, name="example.com/a:1", seed="paths")
    layout = image.write_oci_layout(service.allowed / "layout")
    blob = layout / "blobs/sha256" / image.layers[0].digest[7:]
    aside = blob.rename(tmp_path / "aside")
    blob.symlink_to(aside)
    with failing(grpc.StatusCode.PERMISSION_DENIED, "denied"):
        _import(service, layout)
    blob.unlink()
    aside.rename(blob)

    [record] = _import(service, layout).imported.images

    assert (record.name, record.target.digest) == (image.name, image.digest)


def test_moved_file_is_taken_over_below_an_allowed_directory(service: Service) -> None:
    """Its inode becomes the blob, also when it lies deeper."""
    directory = service.case.settings.layout.verifier / "verified" / "deeper"
    directory.mkdir()
    try:
        path = directory / "file"
        path.write_bytes(os.urandom(2_000_000))
        inode = path.stat().st_ino

        ingested = _move(service, path).ingested

        assert not path.exists()
        blobs = service.case.backing.blobs_directory
        assert blobs is not None
        assert (blobs / ingested.digest[7:]).stat().st_ino == inode
    finally:
        directory.rmdir()
