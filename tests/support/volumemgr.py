"""A volume manager's calls to the service, as EVE's makes them, in the words of its tests."""

__all__ = ["VolumeManager", "tar_requests", "volume_name"]

from collections.abc import Callable, Iterator
from pathlib import Path

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2, volumes_pb2
from tests.support import volumes
from tests.support.images import BuiltImage
from tests.support.rpc import Service, last

_TAR_CHUNK = 1024


def volume_name(generation: int = 0) -> str:
    """A name that nobody used."""
    return str(volumes.volume_name(generation))


def tar_requests(
    archive: bytes, name: str, between: Callable[[], object]
) -> Iterator[images_pb2.UploadImageRequest]:
    """An upload of an archive; something else happens before each of its small chunks."""
    yield images_pb2.UploadImageRequest(header=images_pb2.UploadImageHeader(name=name))
    for start in range(0, len(archive), _TAR_CHUNK):
        between()
        yield images_pb2.UploadImageRequest(data=archive[start : start + _TAR_CHUNK])
    yield images_pb2.UploadImageRequest(end=types_pb2.UploadEnd())


class VolumeManager:
    """Calls one service.

    Args:
        service: The service.
        files: Where verified files are put for it.
    """

    def __init__(self, service: Service, files: Path) -> None:
        self._service = service
        self._files = files

    def verified(self, data: bytes, digest: str) -> Path:
        """A file as the verifier leaves it."""
        path = self._path(digest)
        path.write_bytes(data)
        return path

    def _path(self, digest: str) -> Path:
        return self._files / digest.removeprefix("sha256:")

    def load_request(self, image: BuiltImage, name: str = "") -> images_pb2.LoadImageRequest:
        """Asks to load an image whose blobs lie in verified files, which are taken over."""
        blobs = [
            images_pb2.LoadBlob(digest=digest, path=str(self._path(digest)), move=True)
            for digest in image.blobs
        ]
        target = types_pb2.Descriptor(media_type=str(image.root["mediaType"]), digest=image.digest)
        return images_pb2.LoadImageRequest(name=name or image.name, target=target, blobs=blobs)

    def load(self, image: BuiltImage, name: str = "") -> images_pb2.Image:
        """EVE's IngestBlobsAndCreateImage, from verified files."""
        for digest, data in image.blobs.items():
            self.verified(data, digest)
        return self.load_again(image, name)

    def load_again(self, image: BuiltImage, name: str = "") -> images_pb2.Image:
        """The same, with whatever verified files there still are."""
        return last(self._service.images.Load(self.load_request(image, name))).image

    def prepare(self, name: str, image: str, *, activate: bool = False) -> volumes_pb2.Volume:
        """A volume of an image."""
        request = volumes_pb2.PrepareVolumeRequest(name=name, image=image, activate=activate)
        return last(self._service.volumes.Prepare(request)).volume

    def remove_volume(self, name: str, *, force: bool = False) -> bool:
        """Whether it was there."""
        request = volumes_pb2.RemoveVolumeRequest(name=name, force=force)
        return self._service.volumes.Remove(request).removed

    def volume(self, name: str) -> volumes_pb2.Volume:
        """A volume as it is now."""
        return self._service.volumes.Get(volumes_pb2.GetVolumeRequest(name=name))

    def volumes(self) -> list[str]:
        """Names of all volumes."""
        listed = self._service.volumes.List(volumes_pb2.ListVolumesRequest())
        return [volume.name for answer in listed for volume in answer.volumes]

    def remove_image(self, name: str) -> bool:
        """Whether it was there."""
        return self._service.images.Remove(images_pb2.RemoveImageRequest(name=name)).removed

    def image_exists(self, name: str) -> bool:
        """Whether a name exists."""
        return self._service.images.Exists(images_pb2.ImageExistsRequest(name=name)).exists

    def holes(self, name: str) -> list[str]:
        """Blobs that an image lacks."""
        answer = self._service.images.Inspect(images_pb2.InspectImageRequest(name=name))
        return [digest for platform in answer.platforms for digest in platform.missing]

    def blob_exists(self, digest: str) -> bool:
        """Whether a blob is there."""
        return self._service.blobs.Exists(blobs_pb2.BlobExistsRequest(digest=digest)).exists

    def media_types(self) -> dict[str, str]:
        """Of each blob whose media type is known."""
        answers = self._service.blobs.ListMediaTypes(blobs_pb2.ListMediaTypesRequest())
        return {blob.digest: blob.media_type for answer in answers for blob in answer.blobs}

    def collect_garbage(self) -> None:
        """A run of containerd's collector."""
        self._service.store.CollectGarbage(store_pb2.CollectGarbageRequest())

    def recover(self) -> None:
        """What the service does when it starts."""
        self._service.store.Recover(store_pb2.RecoverRequest())

    def prune_blobs(self) -> None:
        """EVE's removal of what nothing refers to."""
        last(self._service.blobs.Prune(types_pb2.PruneRequest()))

    def findings(self) -> list[str]:
        """What a check finds."""
        steps = self._service.store.Check(store_pb2.CheckRequest())
        return [f"{s.finding.problem} {s.finding.object}" for s in steps if s.HasField("finding")]
