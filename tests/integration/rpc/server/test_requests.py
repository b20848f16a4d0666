"""Requests with something wrong in them: a clear error each, and nothing happens."""

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2, volumes_pb2
from cas.model.digest import Digest
from tests.support.rpc import Service, error_info, failing
from tests.support.stores import assert_nothing_left, own_blobs

DIGEST = str(Digest.of(b"x"))
VOLUME = f"{uuid.UUID(int=1)}#0"
WRONG_DIGESTS = [
    "",
    "x",
    "sha256:",
    DIGEST.upper(),
    "sha512:" + "0" * 128,
    DIGEST + "0",
    "x" * 9999,
]
WRONG_IMAGES = ["", " ", "a\n", "x" * 2000, "\x00", "a ", "\ud7ff\x07"]
WRONG_VOLUMES = ["", "x", f"{uuid.UUID(int=1)}", f"{VOLUME}0x", VOLUME.upper() + "#", "../x#0"]
TARGET = types_pb2.Descriptor(media_type="application/x", digest=DIGEST, size=1)

Ask = Callable[[Service, Any], Any]


def _header(**fields: Any) -> list[blobs_pb2.UploadBlobRequest]:
    return [blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader(**fields))]


_END = blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd())


def _blob(data: bytes) -> blobs_pb2.UploadBlobRequest:
    return blobs_pb2.UploadBlobRequest(data=data)


def _image(data: bytes) -> images_pb2.UploadImageRequest:
    return images_pb2.UploadImageRequest(data=data)


_DIGEST_CALLS: dict[str, Ask] = {
    "Get": lambda s, d: s.blobs.Get(blobs_pb2.GetBlobRequest(digest=d)),
    "Exists": lambda s, d: s.blobs.Exists(blobs_pb2.BlobExistsRequest(digest=d)),
    "Missing": lambda s, d: s.blobs.Missing(blobs_pb2.MissingBlobsRequest(digests=[d])),
    "Read": lambda s, d: list(s.blobs.Read(blobs_pb2.ReadBlobRequest(digest=d))),
    "UpdateLabels": lambda s, d: s.blobs.UpdateLabels(blobs_pb2.UpdateBlobLabelsRequest(digest=d)),
    "Pin": lambda s, d: s.blobs.Pin(blobs_pb2.PinBlobRequest(digest=d)),
    "Unpin": lambda s, d: s.blobs.Unpin(blobs_pb2.UnpinBlobRequest(digest=d)),
    "Remove": lambda s, d: list(s.blobs.Remove(blobs_pb2.RemoveBlobsRequest(digests=[d]))),
    "Children": lambda s, d: s.blobs.Children(blobs_pb2.BlobChildrenRequest(digest=d)),
    "Verify": lambda s, d: list(s.blobs.Verify(blobs_pb2.VerifyBlobRequest(digest=d))),
    "Create": lambda s, d: s.images.Create(
        images_pb2.CreateImageRequest(
            name="x", target=types_pb2.Descriptor(media_type="x", digest=d)
        )
    ),
    "Replace": lambda s, d: s.images.Replace(
        images_pb2.ReplaceImageRequest(
            name="x", target=types_pb2.Descriptor(media_type="x", digest=d)
        )
    ),
    "Load target": lambda s, d: list(
        s.images.Load(
            images_pb2.LoadImageRequest(
                name="x", target=types_pb2.Descriptor(media_type="x", digest=d)
            )
        )
    ),
    "Load blob": lambda s, d: list(
        s.images.Load(
            images_pb2.LoadImageRequest(
                name="x", target=TARGET, blobs=[images_pb2.LoadBlob(digest=d, content=b"")]
            )
        )
    ),
}

_IMAGE_CALLS: dict[str, Ask] = {
    "Create": lambda s, n: s.images.Create(images_pb2.CreateImageRequest(name=n, target=TARGET)),
    "Load": lambda s, n: list(s.images.Load(images_pb2.LoadImageRequest(name=n, target=TARGET))),
    "Get": lambda s, n: s.images.Get(images_pb2.GetImageRequest(name=n)),
    "Exists": lambda s, n: s.images.Exists(images_pb2.ImageExistsRequest(name=n)),
    "Inspect": lambda s, n: s.images.Inspect(images_pb2.InspectImageRequest(name=n)),
    "Tag": lambda s, n: s.images.Tag(images_pb2.TagImageRequest(name="x", new_name=n)),
    "Tag of": lambda s, n: s.images.Tag(images_pb2.TagImageRequest(name=n, new_name="x")),
    "Remove": lambda s, n: s.images.Remove(images_pb2.RemoveImageRequest(name=n)),
    "Export": lambda s, n: list(s.images.Export(images_pb2.ExportImageRequest(name=n))),
    "Prepare": lambda s, n: list(
        s.volumes.Prepare(volumes_pb2.PrepareVolumeRequest(name=VOLUME, image=n))
    ),
}

_VOLUME_CALLS: dict[str, Ask] = {
    "Prepare": lambda s, n: list(
        s.volumes.Prepare(volumes_pb2.PrepareVolumeRequest(name=n, image="x"))
    ),
    "Activate": lambda s, n: s.volumes.Activate(volumes_pb2.ActivateVolumeRequest(name=n)),
    "Deactivate": lambda s, n: s.volumes.Deactivate(volumes_pb2.DeactivateVolumeRequest(name=n)),
    "Remove": lambda s, n: s.volumes.Remove(volumes_pb2.RemoveVolumeRequest(name=n)),
    "Get": lambda s, n: s.volumes.Get(volumes_pb2.GetVolumeRequest(name=n)),
    "Usage": lambda s, n: s.volumes.Usage(volumes_pb2.VolumeUsageRequest(name=n)),
}

_OTHERS: dict[str, Callable[[Service], Any]] = {
    "blob filter": lambda s: list(s.blobs.List(blobs_pb2.ListBlobsRequest(filters=["x"]))),
    "image filter": lambda s: list(s.images.List(images_pb2.ListImagesRequest(filters=["size>1"]))),
    "prune filter": lambda s: list(
        s.store.Prune(types_pb2.PruneRequest(filters=["until=yesterday"]))
    ),
    "prune goal": lambda s: list(s.store.Prune(types_pb2.PruneRequest(min_free=-1))),
    "prune goal below zero": lambda s: list(
        s.images.Prune(types_pb2.PruneRequest(keep_at_most=-(2**63)))
    ),
    "plan with more": lambda s: list(
        s.blobs.Prune(types_pb2.PruneRequest(plan_id="x", filters=["until=1h"]))
    ),
    "offset": lambda s: list(s.blobs.Read(blobs_pb2.ReadBlobRequest(digest=_stored(s), offset=-1))),
    "offset beyond the end": lambda s: list(
        s.blobs.Read(blobs_pb2.ReadBlobRequest(digest=_stored(s), offset=99))
    ),
    "length": lambda s: list(s.blobs.Read(blobs_pb2.ReadBlobRequest(digest=_stored(s), length=-1))),
    "too many to miss": lambda s: s.blobs.Missing(
        blobs_pb2.MissingBlobsRequest(digests=[DIGEST] * 4097)
    ),
    "too many to remove": lambda s: list(
        s.blobs.Remove(blobs_pb2.RemoveBlobsRequest(digests=[DIGEST] * 4097))
    ),
    "label of containerd": lambda s: s.blobs.UpdateLabels(
        blobs_pb2.UpdateBlobLabelsRequest(digest=DIGEST, set={"containerd.io/gc.root": "x"})
    ),
    "label of the store removed": lambda s: s.blobs.UpdateLabels(
        blobs_pb2.UpdateBlobLabelsRequest(digest=DIGEST, remove=["cas.lfedge.org/media-type"])
    ),
    "label set and removed": lambda s: s.blobs.UpdateLabels(
        blobs_pb2.UpdateBlobLabelsRequest(digest=DIGEST, set={"a": "b"}, remove=["a"])
    ),
    "label without value": lambda s: s.blobs.UpdateLabels(
        blobs_pb2.UpdateBlobLabelsRequest(digest=DIGEST, set={"a": ""})
    ),
    "pin that is too long": lambda s: s.blobs.Pin(
        blobs_pb2.PinBlobRequest(digest=DIGEST, owner="x" * 5000)
    ),
    "media type of a target": lambda s: s.images.Create(
        images_pb2.CreateImageRequest(name="x", target=types_pb2.Descriptor(digest=DIGEST))
    ),
    "size of a target": lambda s: s.images.Create(
        images_pb2.CreateImageRequest(
            name="x", target=types_pb2.Descriptor(media_type="x", digest=DIGEST, size=-1)
        )
    ),
    "no target": lambda s: s.images.Create(images_pb2.CreateImageRequest(name="x")),
    "size of a blob to load": lambda s: list(
        s.images.Load(
            images_pb2.LoadImageRequest(
                name="x", target=TARGET, blobs=[images_pb2.LoadBlob(digest=DIGEST, size=-1)]
            )
        )
    ),
    "size of a disk": lambda s: list(
        s.volumes.PrepareDisk(volumes_pb2.PrepareDiskRequest(name=VOLUME, size=-1))
    ),
    "format of a disk": lambda s: list(
        s.volumes.PrepareDisk(
            volumes_pb2.PrepareDiskRequest(name=VOLUME, size=1, format=99)  # type: ignore[arg-type]
        )
    ),
    "content to move": lambda s: list(
        s.images.Load(
            images_pb2.LoadImageRequest(
                name="x",
                target=TARGET,
                blobs=[images_pb2.LoadBlob(digest=DIGEST, content=b"x", move=True)],
            )
        )
    ),
    "export format": lambda s: list(
        s.images.Export(images_pb2.ExportImageRequest(name="x", format="zip"))
    ),
    "export platform": lambda s: list(
        s.images.Export(
            images_pb2.ExportImageRequest(name="x", platform=types_pb2.Platform(os="linux"))
        )
    ),
    "import platform": lambda s: list(
        s.images.Import(
            images_pb2.ImportImageRequest(
                path=str(s.allowed / "x"), platform=types_pb2.Platform(architecture="amd64")
            )
        )
    ),
    "time without reading": lambda s: list(
        s.store.Check(store_pb2.CheckRequest(max_duration=Duration(seconds=1)))
    ),
    "time below zero": lambda s: list(
        s.store.Check(store_pb2.CheckRequest(read_data=True, max_duration=Duration(seconds=-1)))
    ),
    "time beyond all bounds": lambda s: list(
        s.store.Check(store_pb2.CheckRequest(read_data=True, max_duration=Duration(seconds=2**62)))
    ),
    "nothing to explain": lambda s: s.store.Why(store_pb2.WhyRequest()),
    "too much to explain": lambda s: s.store.Why(store_pb2.WhyRequest(object="x" * 5000)),
    "call without a key": lambda s: s.store.Wait(store_pb2.WaitRequest()),
    "key that is too long": lambda s: s.store.Wait(store_pb2.WaitRequest(call="x" * 300)),
    "kind of event": lambda s: list(s.store.Events(store_pb2.EventsRequest(kinds=["x"]))),
    "size of an ingest": lambda s: list(
        s.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(s.allowed / "x"), size=-1))
    ),
    "digest of an ingest": lambda s: list(
        s.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(s.allowed / "x"), digest="x"))
    ),
    "label of an ingest": lambda s: list(
        s.blobs.Ingest(
            blobs_pb2.IngestBlobRequest(
                path=str(s.allowed / "x"), labels={"containerd.io/gc.ref.content.0": DIGEST}
            )
        )
    ),
    "directory to ingest": lambda s: list(
        s.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(_directory(s))))
    ),
    "upload of nothing": lambda s: s.blobs.Upload(iter(())),
    "upload without header": lambda s: s.blobs.Upload(iter([_blob(b"x")])),
    "upload with two headers": lambda s: s.blobs.Upload(iter([*_header(), *_header()])),
    "upload of an empty message": lambda s: s.blobs.Upload(
        iter([*_header(), blobs_pb2.UploadBlobRequest()])
    ),
    "upload of a large chunk": lambda s: s.blobs.Upload(
        iter([*_header(), _blob(b"x" * (256 * 1024 + 1))])
    ),
    "upload with a wrong digest": lambda s: s.blobs.Upload(iter(_header(digest="sha256:x"))),
    "upload with a wrong size": lambda s: s.blobs.Upload(iter(_header(size=-5))),
    "upload with a wrong label": lambda s: s.blobs.Upload(
        iter(_header(labels={"cas.lfedge.org/keep": "x"}))
    ),
    "image upload without header": lambda s: s.images.Upload(iter([_image(b"x")])),
    "image upload with a wrong name": lambda s: s.images.Upload(
        iter(
            [
                images_pb2.UploadImageRequest(header=images_pb2.UploadImageHeader(name=" ")),
                _image(b""),
            ]
        )
    ),
}


def _stored(service: Service) -> str:
    return service.blobs.Upload(iter([*_header(), _blob(b"x"), _END])).digest


def _directory(service: Service) -> Path:
    path = service.allowed / "directory"
    path.mkdir(exist_ok=True)
    return path


def _with(ask: Ask, value: str, service: Service) -> object:
    return ask(service, value)


def _cases() -> Iterable[tuple[str, Callable[[Service], Any]]]:
    for calls, wrong in (
        (_DIGEST_CALLS, WRONG_DIGESTS),
        (_IMAGE_CALLS, WRONG_IMAGES),
        (_VOLUME_CALLS, WRONG_VOLUMES),
    ):
        for name, ask in calls.items():
            for value in wrong:
                yield f"{name} {value[:20]!r}", partial(_with, ask, value)
    yield from _OTHERS.items()


def test_wrong_fields_are_the_callers_mistake(service: Service) -> None:
    """In every request, every field that can be wrong: INVALID_ARGUMENT, and what is wrong."""
    for name, ask in _cases():
        with pytest.raises(grpc.RpcError) as caught:
            ask(service)
        error = caught.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, (name, error)
        assert error_info(error).metadata["kind"] == "usage", (name, error)
        assert error.details(), name

    assert list(service.case.images.iter_images()) == []
    assert list(service.case.volumes.iter_volumes()) == []
    service.case.blobs.remove(Digest.of(b"x"))
    assert own_blobs(service.case.backing) == set()
    assert_nothing_left(service.case.backing)


def _methods(service: Service) -> Iterator[tuple[str, Any]]:
    for declared in (blobs_pb2, images_pb2, volumes_pb2, store_pb2):
        for name, described in declared.DESCRIPTOR.services_by_name.items():
            for method in described.methods:
                yield f"/cas.v1.{name}/{method.name}", method


def _raw(service: Service, path: str, method: Any, payload: bytes) -> object:
    same = {"request_serializer": lambda raw: raw, "response_deserializer": lambda raw: raw}
    if method.client_streaming:
        return service.channel.stream_unary(path, **same)(iter([payload]), timeout=30)
    if method.server_streaming:
        return list(service.channel.unary_stream(path, **same)(payload, timeout=30))
    return service.channel.unary_unary(path, **same)(payload, timeout=30)


def test_bytes_that_are_no_request_are_the_callers_mistake(service: Service) -> None:
    """Every method says so, and none hangs or fails inside."""
    for path, method in _methods(service):
        for payload in (b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x0f"):
            with failing(grpc.StatusCode.INVALID_ARGUMENT, "usage"):
                _raw(service, path, method, payload)


def test_text_fields_refuse_what_is_no_utf8(service: Service) -> None:
    """Strings of every request, filled with bytes that are no text."""
    tried = 0
    for path, method in _methods(service):
        for field in method.input_type.fields:
            if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
                payload = bytes([field.number << 3 | 2, 2, 0xC3, 0x28])
                with failing(grpc.StatusCode.INVALID_ARGUMENT, "usage"):
                    _raw(service, path, method, payload)
                tried += 1
    assert tried > 20


def test_empty_requests_are_answered(service: Service) -> None:
    """An answer or a clear error, never a failure inside."""
    for path, method in _methods(service):
        if method.name == "Events":
            continue  # lasts until somebody ends it
        assert _code(partial(_raw, service, path, method, b"")) in (
            grpc.StatusCode.OK,
            grpc.StatusCode.INVALID_ARGUMENT,
        ), path


def _code(ask: Callable[[], object]) -> grpc.StatusCode:
    try:
        ask()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_request_that_is_too_large_is_refused(service: Service) -> None:
    """gRPC ends the call, the connection and the service go on."""
    version = service.store.Version(store_pb2.VersionRequest())
    request = images_pb2.LoadImageRequest(
        name="x",
        target=TARGET,
        blobs=[images_pb2.LoadBlob(digest=DIGEST, content=b"x" * version.message_bytes)],
    )

    with pytest.raises(grpc.RpcError) as caught:
        list(service.images.Load(request))

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service.store.Version(store_pb2.VersionRequest()).cas


def test_call_that_does_not_exist_is_unimplemented(service: Service) -> None:
    """As gRPC has it."""
    call = service.channel.unary_unary(
        "/cas.v1.Blobs/Burn",
        request_serializer=lambda raw: raw,
        response_deserializer=lambda raw: raw,
    )
    with pytest.raises(grpc.RpcError) as caught:
        call(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_connection_that_speaks_something_else_is_dropped(service: Service) -> None:
    """HTTP/1, noise and silence: the service goes on."""
    for noise in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(1000), b""):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(service.socket))
            client.sendall(noise)
    assert service.store.Version(store_pb2.VersionRequest()).cas
