"""Every method of the service, with a request that does something in a stocked store."""

__all__ = ["METHODS", "REQUESTS", "Stock", "begin", "outcome", "stock"]

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2, volumes_pb2
from cas.model.digest import Digest
from cas.model.volume_name import VolumeName
from cas.rpc.server.transfer import pieces
from tests.support.images import BuiltImage, layered_image
from tests.support.rpc import Service

_FILES: tuple[FileDescriptor, ...] = (
    blobs_pb2.DESCRIPTOR,
    images_pb2.DESCRIPTOR,
    volumes_pb2.DESCRIPTOR,
    store_pb2.DESCRIPTOR,
)

METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}.{method.name}": method
    for file in _FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
"""Everything that is declared, by name, as in ``Blobs.Get``; but of vaults, for which containerd is
never asked."""


@dataclass(frozen=True)
class Stock:
    """What is in a store, and what may be put there.

    Attributes:
        image: In it, with a volume.
        archive: A file with it.
        other: An image that is not in it, as a file of an archive.
        blob: A pinned blob in it.
        file: A file that is not in it.
        volume: A volume in it, mounted.
        idle: Another, not mounted, with a snapshot "stocked".
        absent: A third, which is not there.
    """

    image: BuiltImage
    archive: Path
    other: Path
    blob: Digest
    file: Path
    volume: VolumeName
    idle: VolumeName
    absent: VolumeName


def stock(service: Service) -> Stock:
    """Put in what is not there; a store that was stocked before is as it was then."""
    made = _describe(service.allowed)
    case = service.case
    case.blobs.ingest(service.allowed / "blob", digest=made.blob)
    if not case.images.exists(made.image.name):
        case.images.import_archive(made.archive)
    case.volumes.prepare(made.volume, made.image.name, activate=True)
    case.volumes.prepare(made.idle, made.image.name)
    case.volumes.deactivate(made.idle)
    case.volume_snapshots.create([made.idle], "stocked")
    for name in (made.volume, made.idle):
        case.volume_snapshots.remove(name, "new", quiesced=True)
    case.volumes.remove(made.absent)
    return made


def _describe(directory: Path) -> Stock:
    image = layered_image(2, name="example.com/stock:1", seed="stock")
    archive, other, blob = (directory / name for name in ("stock.tar", "other.tar", "blob"))
    if not blob.exists():
        image.write_oci_tar(archive)
        blob.write_bytes(b"a pinned blob" * 1000)
    layered_image(2, name="example.com/other:1", seed=os.urandom(8).hex()).write_oci_tar(other)
    file = directory / "file"
    file.write_bytes(os.urandom(300_000))
    names = [VolumeName.parse(f"00000000-0000-4000-8000-{number:012d}#0") for number in range(3)]
    return Stock(image, archive, other, Digest.of(blob.read_bytes()), file, *names)


def _target(held: Stock) -> types_pb2.Descriptor:
    root = held.image.root
    return types_pb2.Descriptor(
        media_type=str(root["mediaType"]), digest=held.image.digest, size=int(root["size"])
    )


def _blob(held: Stock) -> Iterator[blobs_pb2.UploadBlobRequest]:
    yield blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader(name="x"))
    for data in pieces([held.file.read_bytes()]):
        yield blobs_pb2.UploadBlobRequest(data=data)
    yield blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd())


def _archive(held: Stock) -> Iterator[images_pb2.UploadImageRequest]:
    yield images_pb2.UploadImageRequest(header=images_pb2.UploadImageHeader())
    for data in pieces([held.other.read_bytes()]):
        yield images_pb2.UploadImageRequest(data=data)
    yield images_pb2.UploadImageRequest(end=types_pb2.UploadEnd())


def _load(held: Stock) -> images_pb2.LoadImageRequest:
    blobs = [
        images_pb2.LoadBlob(digest=digest, content=data)
        for digest, data in held.image.blobs.items()
    ]
    return images_pb2.LoadImageRequest(name="example.com/new:1", target=_target(held), blobs=blobs)


REQUESTS: dict[str, Callable[[Stock], Any]] = {
    "Blobs.Ingest": lambda held: blobs_pb2.IngestBlobRequest(path=str(held.file)),
    "Blobs.Upload": _blob,
    "Blobs.Pull": lambda held: blobs_pb2.PullBlobRequest(
        url="http://127.0.0.1:1/nothing", digest=f"sha256:{'0' * 64}"
    ),
    "Blobs.Get": lambda held: blobs_pb2.GetBlobRequest(digest=str(held.blob)),
    "Blobs.Exists": lambda held: blobs_pb2.BlobExistsRequest(digest=str(held.blob)),
    "Blobs.Missing": lambda held: blobs_pb2.MissingBlobsRequest(digests=[str(held.blob)]),
    "Blobs.List": lambda _held: blobs_pb2.ListBlobsRequest(),
    "Blobs.ListMediaTypes": lambda _held: blobs_pb2.ListMediaTypesRequest(),
    "Blobs.Read": lambda held: blobs_pb2.ReadBlobRequest(digest=str(held.blob)),
    "Blobs.UpdateLabels": lambda held: blobs_pb2.UpdateBlobLabelsRequest(
        digest=str(held.blob), set={"example.com/a": "b"}
    ),
    "Blobs.Pin": lambda held: blobs_pb2.PinBlobRequest(digest=str(held.blob)),
    "Blobs.Unpin": lambda held: blobs_pb2.UnpinBlobRequest(digest=str(held.blob)),
    "Blobs.Remove": lambda held: blobs_pb2.RemoveBlobsRequest(digests=[str(held.blob)]),
    "Blobs.Children": lambda held: blobs_pb2.BlobChildrenRequest(digest=held.image.digest),
    "Blobs.Verify": lambda held: blobs_pb2.VerifyBlobRequest(digest=str(held.blob)),
    "Blobs.Prune": lambda _held: types_pb2.PruneRequest(),
    "Images.Create": lambda held: images_pb2.CreateImageRequest(
        name="example.com/new:1", target=_target(held)
    ),
    "Images.Replace": lambda held: images_pb2.ReplaceImageRequest(
        name=held.image.name, target=_target(held)
    ),
    "Images.Load": _load,
    "Images.Get": lambda held: images_pb2.GetImageRequest(name=held.image.name),
    "Images.Exists": lambda held: images_pb2.ImageExistsRequest(name=held.image.name),
    "Images.List": lambda _held: images_pb2.ListImagesRequest(),
    "Images.Inspect": lambda held: images_pb2.InspectImageRequest(name=held.image.name),
    "Images.Tag": lambda held: images_pb2.TagImageRequest(
        name=held.image.name, new_name="example.com/new:1"
    ),
    "Images.WrapDisk": lambda held: images_pb2.WrapDiskRequest(
        name="example.com/disk:1", digest=str(held.blob)
    ),
    "Images.Remove": lambda held: images_pb2.RemoveImageRequest(name=held.image.name, force=True),
    "Images.Import": lambda held: images_pb2.ImportImageRequest(path=str(held.other)),
    "Images.Upload": _archive,
    "Images.Export": lambda held: images_pb2.ExportImageRequest(name=held.image.name),
    "Images.Prune": lambda _held: types_pb2.PruneRequest(),
    "Images.Pull": lambda _held: images_pb2.PullImageRequest(reference="127.0.0.1:1/nobody:1"),
    "Volumes.Prepare": lambda held: volumes_pb2.PrepareVolumeRequest(
        name=str(held.absent), image=held.image.name
    ),
    "Volumes.PrepareDisk": lambda held: volumes_pb2.PrepareDiskRequest(
        name=str(held.absent), source=str(held.blob)
    ),
    "Volumes.Activate": lambda held: volumes_pb2.ActivateVolumeRequest(name=str(held.idle)),
    "Volumes.Deactivate": lambda held: volumes_pb2.DeactivateVolumeRequest(name=str(held.volume)),
    "Volumes.ActivateAll": lambda _held: volumes_pb2.ActivateAllVolumesRequest(),
    "Volumes.DeactivateAll": lambda _held: volumes_pb2.DeactivateAllVolumesRequest(),
    "Volumes.Remove": lambda held: volumes_pb2.RemoveVolumeRequest(name=str(held.volume)),
    "Volumes.List": lambda _held: volumes_pb2.ListVolumesRequest(),
    "Volumes.ListForeign": lambda _held: volumes_pb2.ListForeignRequest(),
    "Volumes.Get": lambda held: volumes_pb2.GetVolumeRequest(name=str(held.volume)),
    "Volumes.Usage": lambda held: volumes_pb2.VolumeUsageRequest(name=str(held.volume)),
    "VolumeSnapshots.Create": lambda held: volumes_pb2.CreateVolumeSnapshotRequest(
        volumes=[str(held.volume), str(held.idle)], snapshot="new", quiesced=True
    ),
    "VolumeSnapshots.List": lambda held: volumes_pb2.ListVolumeSnapshotsRequest(
        volume=str(held.idle)
    ),
    "VolumeSnapshots.RollBack": lambda held: volumes_pb2.RollBackVolumesRequest(
        volumes=[str(held.idle)], snapshot="stocked"
    ),
    "VolumeSnapshots.Remove": lambda held: volumes_pb2.RemoveVolumeSnapshotRequest(
        volume=str(held.idle), snapshot="stocked"
    ),
    "Store.Version": lambda _held: store_pb2.VersionRequest(),
    "Store.Usage": lambda _held: store_pb2.UsageRequest(),
    "Store.Prune": lambda _held: types_pb2.PruneRequest(),
    "Store.Check": lambda _held: store_pb2.CheckRequest(read_data=True, fix=True),
    "Store.Why": lambda held: store_pb2.WhyRequest(object=held.image.digest),
    "Store.Recover": lambda _held: store_pb2.RecoverRequest(),
    "Store.CollectGarbage": lambda _held: store_pb2.CollectGarbageRequest(),
    "Store.Wait": lambda _held: store_pb2.WaitRequest(call="nobody's"),
    "Store.Events": lambda _held: store_pb2.EventsRequest(),
}
"""One request per method, or an iterator of them."""


def begin(service: Service, name: str, held: Stock, **how: Any) -> Any:
    """Make a call; gives it, under way.

    Args:
        service: Whom to ask.
        name: Of the method.
        held: What is in its store.
        how: Deadline and metadata.
    """
    method = METHODS[name]
    stub = getattr(service, method.containing_service.name.lower())
    call = getattr(stub, method.name)
    request = REQUESTS[name](held)
    return call(request, **how) if method.server_streaming else call.future(request, **how)


def outcome(name: str, call: Any) -> list[Any]:
    """Wait for the end of a call; gives its responses, raises how it failed."""
    return list(call) if METHODS[name].server_streaming else [call.result()]
