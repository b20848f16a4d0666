"""Callers that change their mind, run out of time or vanish: what they began is undone."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2, volumes_pb2
from cas.fsops.effects import Effect
from cas.model.digest import Digest
from cas.rpc.limits import PIECE_BYTES
from tests.support.halting import halted
from tests.support.images import BuiltImage, build_image
from tests.support.layers import build_layer, file
from tests.support.rpc import Service, connect, failing, last
from tests.support.stores import assert_nothing_left, own_blobs
from tests.support.volumes import volume_name
from tests.support.waiting import wait_for

_MIB = 1024 * 1024

Key = tuple[tuple[str, str], ...]
Begin = Callable[[Service, BuiltImage, Key], Any]


@pytest.fixture
def key() -> Key:
    """Names one call."""
    return (("cas-call", str(uuid.uuid4())),)


@pytest.fixture
def image() -> BuiltImage:
    """An image that is large enough to be taken apart in the middle."""
    layers = [build_layer([file(f"data{number}", os.urandom(200_000))]) for number in range(3)]
    return build_image(layers, name=f"example.com/test/{uuid.uuid4().hex}:1")


def _await_cancelled(service: Service, key: Key) -> None:
    """Wait until the service has heard of it."""
    [call] = service.server.calls.of_key(key[0][1])
    wait_for(call.cancellation.is_set)


def _await_undone(service: Service, key: Key) -> None:
    service.store.Wait(store_pb2.WaitRequest(call=key[0][1]), timeout=60)


def _assert_nothing_left(service: Service) -> None:
    backing = service.case.backing
    assert_nothing_left(backing)
    service.case.collect_garbage()
    assert own_blobs(backing) == set()
    assert list(backing.images.iter_images()) == []
    assert list(backing.snapshots.iter_snapshots()) == []
    assert list(service.case.settings.layout.volumes.iterdir()) == []
    unpacking = service.case.settings.layout.unpacking
    assert not unpacking.is_dir() or list(unpacking.iterdir()) == []


def _file(service: Service, data: bytes) -> Path:
    path = service.allowed / uuid.uuid4().hex
    path.write_bytes(data)
    return path


def _ingest(service: Service, image: BuiltImage, key: Key) -> Any:
    path = _file(service, os.urandom(3 * _MIB))
    return service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path)), metadata=key)


def _load(service: Service, image: BuiltImage, key: Key) -> Any:
    blobs = [
        images_pb2.LoadBlob(digest=digest, path=str(_file(service, data)))
        for digest, data in image.blobs.items()
    ]
    target = types_pb2.Descriptor(media_type=str(image.root["mediaType"]), digest=image.digest)
    request = images_pb2.LoadImageRequest(name=image.name, target=target, blobs=blobs)
    return service.images.Load(request, metadata=key)


def _import(service: Service, image: BuiltImage, key: Key) -> Any:
    path = image.write_oci_tar(service.allowed / "image.tar")
    return service.images.Import(images_pb2.ImportImageRequest(path=str(path)), metadata=key)


@pytest.mark.parametrize("ending", ["cancelled", "vanished"])
@pytest.mark.parametrize(
    ("begin", "effect", "part"),
    [
        (_ingest, Effect.FSYNC, "stage"),
        (_load, Effect.LINK, "blobs/sha256"),
        (_import, Effect.LINK, "blobs/sha256"),
        (_import, Effect.FSYNC, "blobs/sha256"),
    ],
)
def test_call_ended_in_the_middle_leaves_nothing(
    service: Service,
    image: BuiltImage,
    key: Key,
    begin: Begin,
    effect: Effect,
    part: str,
    ending: str,
) -> None:
    """Whatever it had begun: no blob, no name, no lease, no staged file."""
    with connect(service.socket) as channel, halted(effect, part) as halt:
        own = Service(service.case, service.server, channel, service.socket, service.allowed)
        call = begin(own, image, key)
        halt.await_reached()
        if ending == "vanished":
            channel.close()
        else:
            call.cancel()
        _await_cancelled(service, key)
        halt.release()
        _await_undone(service, key)

    _assert_nothing_left(service)


def test_ingest_cancelled_at_its_last_step_is_done_or_undone(service: Service, key: Key) -> None:
    """Nobody can say which; but it is one of the two, and nothing in between."""
    data = os.urandom(3 * _MIB)
    request = blobs_pb2.IngestBlobRequest(path=str(_file(service, data)))
    with halted(Effect.LINK, "blobs/sha256") as halt:
        call = service.blobs.Ingest(request, metadata=key)
        halt.await_reached()
        call.cancel()
        halt.release()
        _await_undone(service, key)

    assert_nothing_left(service.case.backing)
    service.case.collect_garbage()
    assert own_blobs(service.case.backing) in (set(), {Digest.of(data)})


def test_deadline_that_passes_in_the_middle_ends_the_work(service: Service, key: Key) -> None:
    """The caller hears of it at once; the service undoes what was begun."""
    path = _file(service, os.urandom(3 * _MIB))
    request = blobs_pb2.IngestBlobRequest(path=str(path))
    with halted(Effect.FSYNC, "stage") as halt:
        call = service.blobs.Ingest(request, metadata=key, timeout=0.5)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in call:
                pass
        halt.release()
        _await_undone(service, key)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    _assert_nothing_left(service)


@pytest.mark.parametrize(
    ("effect", "part"),
    [
        (Effect.MKDIR, "unpack"),
        (Effect.RENAME, "vault/volumes"),
        (Effect.FSYNC, "preparing"),
    ],
)
def test_preparation_cancelled_in_the_middle_leaves_nothing(
    service: Service, image: BuiltImage, key: Key, effect: Effect, part: str
) -> None:
    """Neither layers nor a volume; the image is as it was, and the next attempt works."""
    last(_import(service, image, ()))
    name = str(volume_name())
    request = volumes_pb2.PrepareVolumeRequest(name=name, image=image.name)
    with halted(effect, part) as halt:
        call = service.volumes.Prepare(request, metadata=key)
        halt.await_reached()
        call.cancel()
        _await_cancelled(service, key)
        halt.release()
        _await_undone(service, key)

    found = [volume.name for each in service.volumes.List(_LIST) for volume in each.volumes]
    # Once it has its name it is there, whoever wanted to know.
    assert found in ([], [name])
    assert_nothing_left(service.case.backing)
    hidden = [path.name for path in service.case.settings.layout.volumes.iterdir()]
    assert [path for path in hidden if path.startswith(".")] == []
    keys = [info.name for info in service.case.backing.snapshots.iter_snapshots()]
    assert [each for each in keys if "extract" in each] == []
    assert last(service.volumes.Prepare(request)).volume.name == name


_LIST = volumes_pb2.ListVolumesRequest()


@pytest.mark.parametrize("how", ["cancelled", "vanished"])
def test_upload_broken_off_in_the_middle_leaves_nothing(
    service: Service, image: BuiltImage, key: Key, tmp_path: Path, how: str
) -> None:
    """Of a blob as of an archive; the half that came is forgotten."""
    archive = image.write_oci_tar(tmp_path / "image.tar").read_bytes()
    begun, ended = threading.Semaphore(0), threading.Event()

    def blob() -> Iterator[blobs_pb2.UploadBlobRequest]:
        yield blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader(name="x"))
        yield blobs_pb2.UploadBlobRequest(data=os.urandom(PIECE_BYTES))
        begun.release()
        ended.wait(60)

    def tar() -> Iterator[images_pb2.UploadImageRequest]:
        yield images_pb2.UploadImageRequest(header=images_pb2.UploadImageHeader())
        yield images_pb2.UploadImageRequest(data=archive[: min(PIECE_BYTES, len(archive) // 2)])
        begun.release()
        ended.wait(60)

    with connect(service.socket) as channel:
        own = Service(service.case, service.server, channel, service.socket, service.allowed)
        calls: list[Any] = [
            own.blobs.Upload.future(blob(), metadata=key),
            own.images.Upload.future(tar(), metadata=key),
        ]
        assert begun.acquire(timeout=60)
        assert begun.acquire(timeout=60)
        wait_for(lambda: service.server.running == 2)
        if how == "cancelled":
            for call in calls:
                call.cancel()
        else:
            channel.close()
        ended.set()
        _await_undone(service, key)

    _assert_nothing_left(service)


def test_upload_that_ends_too_early_stores_nothing(
    service: Service, image: BuiltImage, tmp_path: Path
) -> None:
    """A caller that says what it will send is held to it, and has to say that it is all."""
    archive = image.write_oci_tar(tmp_path / "image.tar").read_bytes()
    data = os.urandom(PIECE_BYTES)
    blob = [
        blobs_pb2.UploadBlobRequest(
            header=blobs_pb2.UploadBlobHeader(digest=str(Digest.of(data)), size=len(data))
        ),
        blobs_pb2.UploadBlobRequest(data=data[:-1]),
        blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd()),
    ]
    tar = [
        images_pb2.UploadImageRequest(header=images_pb2.UploadImageHeader()),
        images_pb2.UploadImageRequest(data=archive[: min(PIECE_BYTES, len(archive) // 2)]),
        images_pb2.UploadImageRequest(end=types_pb2.UploadEnd()),
    ]

    for attempt in (
        lambda: service.blobs.Upload(iter(blob)),
        lambda: service.images.Upload(iter(tar)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            attempt()
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    for attempt in (
        lambda: service.blobs.Upload(iter(blob[:-1])),
        lambda: service.images.Upload(iter(tar[:-1])),
    ):
        with failing(grpc.StatusCode.INVALID_ARGUMENT, "usage"):
            attempt()

    _assert_nothing_left(service)


def test_reader_that_goes_away_in_the_middle_ends_the_call(service: Service, key: Key) -> None:
    """Of content, of an export, of a list: nobody goes on sending."""
    data = os.urandom(8 * _MIB)
    layer = build_layer([file("data", data)])
    large = build_image([layer], name="example.com/large:1")
    path = large.write_oci_tar(service.allowed / "large.tar")
    last(service.images.Import(images_pb2.ImportImageRequest(path=str(path))))

    begins: list[Callable[[], Any]] = [
        lambda: service.blobs.Read(blobs_pb2.ReadBlobRequest(digest=layer.digest), metadata=key),
        lambda: service.images.Export(images_pb2.ExportImageRequest(name=large.name), metadata=key),
        lambda: service.store.Events(store_pb2.EventsRequest(), metadata=key),
    ]
    for begin in begins:
        call = begin()
        next(call)
        call.cancel()
        _await_undone(service, key)
        wait_for(lambda: service.server.running == 0)
    assert_nothing_left(service.case.backing)


def test_caller_that_waits_in_line_can_leave(service: Service, image: BuiltImage, key: Key) -> None:
    """For a volume that another call prepares, and for a digest that another call ingests."""
    last(_import(service, image, ()))
    name = str(volume_name())
    prepare = volumes_pb2.PrepareVolumeRequest(name=name, image=image.name)
    with halted(Effect.MKDIR, "preparing") as halt:
        first = service.volumes.Prepare(prepare)
        halt.await_reached()
        second = service.volumes.Prepare(prepare, metadata=key)
        third = service.volumes.Activate.future(
            volumes_pb2.ActivateVolumeRequest(name=name), metadata=key
        )
        wait_for(lambda: service.server.running == 3)
        second.cancel()
        third.cancel()
        _await_undone(service, key)
        assert service.server.running == 1
        halt.release()
        assert last(first).volume.name == name


def test_work_of_a_caller_is_reported_at_least_once_a_second(service: Service) -> None:
    """EVE #6300, #6301, #3596: a watchdog can tell work from a hang, even when nothing changes."""
    path = _file(service, os.urandom(3 * _MIB))
    with halted(Effect.FSYNC, "stage") as halt:
        call = service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path)))
        halt.await_reached()
        signs = [next(call)]
        while signs[-1].progress.action:  # of what changed before
            signs.append(next(call))
        signs.extend(next(call) for _ in range(2))
        halt.release()
        rest = list(call)

    assert all(step.HasField("progress") for step in signs)
    assert not any(step.progress.action for step in signs[-3:])
    [finished] = [step.progress for step in rest if step.progress.finished]
    assert (finished.action, finished.done, finished.total) == ("ingest", 3 * _MIB, 3 * _MIB)
    assert rest[-1].HasField("ingested")
