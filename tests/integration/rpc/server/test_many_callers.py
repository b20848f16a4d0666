"""Many callers at once: work is done once, and memory, threads and descriptors stay bounded."""

import os
import re
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
import pytest

from cas._gen.cas.v1 import (
    blobs_pb2,
    blobs_pb2_grpc,
    images_pb2,
    images_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
    types_pb2,
    volumes_pb2,
    volumes_pb2_grpc,
)
from cas.app import Case
from cas.model.settings import Settings
from cas.rpc.limits import DIGESTS, MESSAGE_BYTES, PIECE_BYTES
from cas.rpc.server.registry import Patience
from tests.support.images import BuiltImage, build_image
from tests.support.layers import build_layer, file
from tests.support.rpc import (
    Service,
    connect,
    error_info,
    failing,
    falling_silent,
    last,
    serve,
)
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

CALLERS = 64
_WORKING = 128
_MIB = 1024 * 1024
_ROOT = Path(__file__).parents[4]
_RESIDENT_MIB = 120
_QUESTION_MIB = MESSAGE_BYTES / _MIB
_SETTLED = 10

_Result = TypeVar("_Result")


@pytest.fixture
def image(service: Service) -> BuiltImage:
    """An image of three layers, in the store."""
    layers = [build_layer([file(f"data{number}", os.urandom(200_000))]) for number in range(3)]
    image = build_image(layers, name=f"example.com/test/{uuid.uuid4().hex}:1")
    path = image.write_oci_tar(service.allowed / "image.tar")
    last(service.images.Import(images_pb2.ImportImageRequest(path=str(path))))
    return image


def _at_once(call: Callable[[int], _Result]) -> list[_Result]:
    with ThreadPoolExecutor(CALLERS) as callers:
        return list(callers.map(call, range(CALLERS)))


def _unpacked(steps: list[volumes_pb2.PrepareVolumeResponse]) -> list[str]:
    """Items that the call that these are of has unpacked itself."""
    return [
        step.progress.item
        for step in steps
        if step.progress.action == "unpack" and step.progress.finished
    ]


def test_one_volume_wanted_by_all_is_prepared_once(service: Service, image: BuiltImage) -> None:
    """Everybody gets it, mounted; one of them made it."""
    name = f"{uuid.uuid4()}#0"
    request = volumes_pb2.PrepareVolumeRequest(name=name, image=image.name, activate=True)

    answers = _at_once(lambda _: list(service.volumes.Prepare(request)))

    volumes = [steps[-1].volume for steps in answers]
    assert {volume.state for volume in volumes} == {volumes_pb2.VOLUME_STATE_ACTIVE}
    assert len({volume.record.created.ToNanoseconds() for volume in volumes}) == 1
    assert len([item for steps in answers for item in _unpacked(steps)]) == len(image.layers)
    assert_nothing_left(service.case.backing)


def test_many_volumes_of_one_image_unpack_each_layer_once(
    service: Service, image: BuiltImage
) -> None:
    """The layers are shared; every caller has a volume of its own."""
    requests = [
        volumes_pb2.PrepareVolumeRequest(name=f"{uuid.uuid4()}#0", image=image.name)
        for _ in range(CALLERS)
    ]

    answers = _at_once(lambda number: list(service.volumes.Prepare(requests[number])))

    assert len({steps[-1].volume.name for steps in answers}) == CALLERS
    assert len([item for steps in answers for item in _unpacked(steps)]) == len(image.layers)
    snapshots = list(service.case.backing.snapshots.iter_snapshots())
    assert len(snapshots) == len(image.layers) + CALLERS
    assert_nothing_left(service.case.backing)


def test_one_digest_brought_by_all_is_written_once(service: Service) -> None:
    """One caller writes it, the others share the result."""
    data = os.urandom(2 * _MIB)
    paths = [service.allowed / str(number) for number in range(CALLERS)]
    for path in paths:
        path.write_bytes(data)
    known = last(
        service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(paths[0])))
    ).ingested.digest
    list(service.blobs.Remove(blobs_pb2.RemoveBlobsRequest(digests=[known])))

    answers = _at_once(
        lambda number: (
            last(
                service.blobs.Ingest(
                    blobs_pb2.IngestBlobRequest(path=str(paths[number]), digest=known)
                )
            ).ingested
        )
    )

    assert [answer.created for answer in answers].count(True) == 1
    assert {answer.digest for answer in answers} == {known}
    assert_nothing_left(service.case.backing)


class _Process:
    """A service in a process of its own."""

    def __init__(self, settings: Settings, socket: Path, allowed: Path) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.rpc_worker",
                *map(str, (settings.persist, settings.namespace, settings.socket)),
                *map(str, (socket, allowed)),
            ],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        self._resident: deque[int] = deque(maxlen=_SETTLED)

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "serving\n"
        return self

    def __exit__(self, *_: object) -> None:
        said = self._process.communicate()[0]
        assert (said, self._process.returncode) == ("ended\n", 0)

    def status(self, key: str) -> int:
        """A number of its ``/proc`` status."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def has_settled(self) -> bool:
        """Whether its memory was the same the last ten times that this was asked."""
        self._resident.append(self.status("VmRSS"))
        return len(self._resident) == _SETTLED and len(set(self._resident)) == 1

    def descriptors(self) -> int:
        """Its open files."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))


def _upload(data: bytes) -> Iterator[blobs_pb2.UploadBlobRequest]:
    yield blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader(name="x"))
    for start in range(0, len(data), PIECE_BYTES):
        yield blobs_pb2.UploadBlobRequest(data=data[start : start + PIECE_BYTES])
    yield blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd())


@pytest.mark.slow
def test_load_of_all_kinds_leaves_memory_threads_and_descriptors_bounded(
    settings: Settings, tmp_path: Path
) -> None:
    """Uploads, reads, exports, imports, volumes and looks at once, by 64 callers each with a
    connection of its own; the second round needs no more than the first.
    """
    large = build_image([build_layer([file("data", os.urandom(4 * _MIB))])], name="example.com/l:1")
    archive = large.write_oci_tar(tmp_path / "large.tar")
    socket = settings.persist / f"{settings.namespace}.sock"
    with _Process(settings, socket, tmp_path) as process, ExitStack() as stack:
        channels = [stack.enter_context(connect(socket)) for _ in range(CALLERS)]

        def work(number: int) -> None:
            channel, kind = channels[number], number % 4
            blobs, images = blobs_pb2_grpc.BlobsStub(channel), images_pb2_grpc.ImagesStub(channel)
            last(images.Import(images_pb2.ImportImageRequest(path=str(archive))))
            if kind == 0:
                blobs.Upload(_upload(os.urandom(2 * _MIB)))
            elif kind == 1:
                digest = large.layers[0].digest
                for _ in blobs.Read(blobs_pb2.ReadBlobRequest(digest=digest)):
                    pass
            elif kind == 2:
                for _ in images.Export(images_pb2.ExportImageRequest(name=large.name)):
                    pass
            else:
                store = store_pb2_grpc.StoreStub(channel)
                list(store.Usage(store_pb2.UsageRequest()))
                list(blobs.List(blobs_pb2.ListBlobsRequest()))
            volumes = volumes_pb2_grpc.VolumesStub(channel)
            name = f"{uuid.uuid4()}#0"
            last(volumes.Prepare(volumes_pb2.PrepareVolumeRequest(name=name, image=large.name)))
            volumes.Remove(volumes_pb2.RemoveVolumeRequest(name=name))

        _at_once(work)
        threads, descriptors = process.status("Threads"), process.descriptors()
        _at_once(work)

        assert process.status("VmHWM") < _RESIDENT_MIB * 1024
        # The pool makes threads as calls overlap, so rounds differ; a leak would be one per call.
        assert process.status("Threads") <= threads + CALLERS
        wait_for(lambda: process.descriptors() <= descriptors)


@pytest.mark.slow
def test_callers_who_do_not_go_on_and_large_requests_leave_memory_bounded(
    settings: Settings, tmp_path: Path
) -> None:
    """64 of a kind at once, each with a connection of its own, and twice as many questions."""
    large = build_image([build_layer([file("data", os.urandom(16 * _MIB))])], name="example.com/l")
    archive = large.write_oci_tar(tmp_path / "large.tar")
    digests = [f"sha256:{number:064x}" for number in range(DIGESTS)]
    question = blobs_pb2.MissingBlobsRequest(digests=digests)
    with (
        _Process(settings, settings.service_socket, tmp_path) as process,
        ExitStack() as stack,
        falling_silent() as silent,
    ):
        channels = [stack.enter_context(connect(settings.service_socket)) for _ in range(CALLERS)]
        blobs = [blobs_pb2_grpc.BlobsStub(channel) for channel in channels]
        images = [images_pb2_grpc.ImagesStub(channel) for channel in channels]
        last(images[0].Import(images_pb2.ImportImageRequest(path=str(archive))))
        read = blobs_pb2.ReadBlobRequest(digest=large.layers[0].digest)
        export = images_pb2.ExportImageRequest(name=large.name)
        pieces = [*islice(_upload(os.urandom(4 * PIECE_BYTES)), 3)]
        kinds: list[Callable[[int], list[Any]]] = [
            lambda number: [blobs[number].Upload.future(silent(*pieces))],
            lambda number: [blobs[number].Read(read)],
            lambda number: [images[number].Export(export)],
        ]
        for begin in kinds:
            calls = [call for number in range(CALLERS) for call in begin(number)]
            wait_for(process.has_settled)
            for call in calls:
                call.cancel()
            wait_for(process.has_settled)
        assert process.status("VmHWM") < _RESIDENT_MIB * 1024
        asked = [stub.Missing.future(question) for stub in blobs for _ in range(2)]
        assert {len(each.result().digests) for each in asked} == {DIGESTS}
        # Beyond one call for each of the callers, a question that waits costs what it brings.
        assert process.status("VmHWM") < (_RESIDENT_MIB + CALLERS * _QUESTION_MIB) * 1024


def test_calls_beyond_the_limit_are_refused_and_may_come_again(service: Service) -> None:
    """The service stays answerable, says that it is full, and has room again afterwards."""
    listeners = [service.store.Events(store_pb2.EventsRequest()) for _ in range(64)]
    for listener in listeners:
        next(listener)

    with failing(grpc.StatusCode.UNAVAILABLE, "service-unavailable"):
        next(service.store.Events(store_pb2.EventsRequest()))
    assert service.store.Version(store_pb2.VersionRequest()).cas
    for listener in listeners:
        listener.cancel()
    wait_for(lambda: _begins(service))


def _begins(service: Service) -> bool:
    listener = service.store.Events(store_pb2.EventsRequest())
    try:
        next(listener)
    except grpc.RpcError:
        return False
    listener.cancel()
    return True


def _ask_over(channels: list[grpc.Channel]) -> list["grpc.Future[store_pb2.VersionResponse]"]:
    request = store_pb2.VersionRequest()
    return [store_pb2_grpc.StoreStub(channel).Version.future(request) for channel in channels]


def test_as_many_connections_as_calls_may_run_are_all_answered(service: Service) -> None:
    """Nobody is refused who asks when there is room."""
    with ExitStack() as stack:
        channels = [stack.enter_context(service.connect()) for _ in range(_WORKING)]
        assert all(future.result(timeout=60).cas for future in _ask_over(channels))


def test_flood_of_connections_is_refused_by_the_service_itself(case: Case, allowed: Path) -> None:
    """While as many calls run as may, each of hundreds hears from us that it may come again."""
    with (
        serve(case, allowed) as service,
        falling_silent() as silent,
        ExitStack() as stack,
    ):
        upload = blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader())
        running = [service.blobs.Upload.future(silent(upload)) for _ in range(_WORKING)]
        wait_for(lambda: service.server.running == _WORKING)
        for future in _ask_over([stack.enter_context(service.connect()) for _ in range(300)]):
            with failing(grpc.StatusCode.UNAVAILABLE, "service-unavailable"):
                future.result(timeout=60)
        for call in running:
            call.cancel()
        wait_for(lambda: service.server.running == 0)
        assert service.store.Version(store_pb2.VersionRequest()).cas


def test_callers_who_do_not_go_on_make_room_when_others_are_refused(
    case: Case, allowed: Path
) -> None:
    """Without anybody's help, and soon; until then nobody minds that they do not read."""
    patience = Patience(stalled=300, wanted=0.5, first=300)
    with serve(case, allowed, patience=patience) as service:
        _ingest_large_records(service.case, allowed)
        listing = [service.blobs.List(blobs_pb2.ListBlobsRequest()) for _ in range(_WORKING)]
        wait_for(lambda: service.server.running == _WORKING)
        with failing(grpc.StatusCode.UNAVAILABLE, "service-unavailable"):
            service.store.Version(store_pb2.VersionRequest(), timeout=60)
        wait_for(lambda: _answers(service))
        for call in listing:
            call.cancel()


def _ingest_large_records(case: Case, allowed: Path) -> None:
    """Store blobs whose list takes several messages, each larger than a window of HTTP/2."""
    labels = {f"example.com/{number}": "x" * 4000 for number in range(70)}
    for name in "abcd":
        (allowed / name).write_text(name)
        case.blobs.ingest(allowed / name, labels=labels)


def _answers(service: Service) -> bool:
    try:
        return bool(service.store.Version(store_pb2.VersionRequest(), timeout=60).cas)
    except grpc.RpcError as error:
        assert error_info(error).reason == "service-unavailable"  # noqa: PT017
        return False
