"""The service ``cas.v1.Volumes``."""

__all__ = ["VolumesServicer"]

from collections.abc import Iterator

from cas._gen.cas.v1 import types_pb2, volumes_pb2
from cas.errors import CasError
from cas.model.progress import Progress
from cas.model.reference import check_image_name
from cas.model.volume_name import VolumeName
from cas.rpc import volume_messages
from cas.rpc.server.batches import batched
from cas.rpc.server.call import Call
from cas.rpc.server.registry import ONLY_WORK
from cas.rpc.server.reporting import reported
from cas.rpc.server.served import Workshop
from cas.rpc.status import error_message
from cas.rpc.volume_values import disk_request
from cas.volumes.status import VolumeStatus


class VolumesServicer:
    """Serves the volumes of a store.

    Args:
        shop: What it works with.
    """

    SERVICE = volumes_pb2.DESCRIPTOR.services_by_name["Volumes"]
    READING = frozenset({"list", "list_foreign", "get", "usage"})
    UNGUARDED: frozenset[str] = frozenset()
    KINDS = ONLY_WORK

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._volumes = shop.store.volumes

    def prepare(
        self, request: volumes_pb2.PrepareVolumeRequest, call: Call
    ) -> Iterator[volumes_pb2.PrepareVolumeResponse]:
        """Make a container volume."""
        name, image = VolumeName.parse(request.name), check_image_name(request.image)

        def work(progress: Progress) -> VolumeStatus:
            return self._volumes.prepare(
                name,
                image,
                read_only=request.read_only,
                activate=request.activate,
                replace=request.replace,
                cancel=call.cancellation,
                progress=progress,
            )

        status = yield from reported(call, self._shop.workers, None, work, _preparing)
        yield volumes_pb2.PrepareVolumeResponse(volume=volume_messages.volume(status))

    def prepare_disk(
        self, request: volumes_pb2.PrepareDiskRequest, call: Call
    ) -> Iterator[volumes_pb2.PrepareVolumeResponse]:
        """Make a disk volume."""
        name, wanted = VolumeName.parse(request.name), disk_request(request)

        def work(progress: Progress) -> VolumeStatus:
            return self._volumes.prepare_disk(
                name,
                wanted,
                replace=request.replace,
                cancel=call.cancellation,
                progress=progress,
            )

        status = yield from reported(call, self._shop.workers, None, work, _preparing)
        yield volumes_pb2.PrepareVolumeResponse(volume=volume_messages.volume(status))

    def activate(
        self, request: volumes_pb2.ActivateVolumeRequest, _call: Call
    ) -> volumes_pb2.Volume:
        """Mount a volume."""
        return volume_messages.volume(self._volumes.activate(VolumeName.parse(request.name)))

    def deactivate(
        self, request: volumes_pb2.DeactivateVolumeRequest, _call: Call
    ) -> volumes_pb2.Volume:
        """Unmount a volume."""
        return volume_messages.volume(self._volumes.deactivate(VolumeName.parse(request.name)))

    def activate_all(
        self, _request: volumes_pb2.ActivateAllVolumesRequest, call: Call
    ) -> Iterator[volumes_pb2.VolumeOutcome]:
        """Mount every volume."""
        return _outcomes(self._volumes.activate_each(), call)

    def deactivate_all(
        self, _request: volumes_pb2.DeactivateAllVolumesRequest, call: Call
    ) -> Iterator[volumes_pb2.VolumeOutcome]:
        """Unmount every volume."""
        return _outcomes(self._volumes.deactivate_each(), call)

    def remove(
        self, request: volumes_pb2.RemoveVolumeRequest, _call: Call
    ) -> volumes_pb2.RemoveVolumeResponse:
        """Remove a volume."""
        name = VolumeName.parse(request.name)
        return volumes_pb2.RemoveVolumeResponse(
            removed=self._volumes.remove(name, force=request.force)
        )

    def list(
        self, _request: volumes_pb2.ListVolumesRequest, _call: Call
    ) -> Iterator[volumes_pb2.ListVolumesResponse]:
        """List volumes."""
        for group in batched(map(volume_messages.volume, self._volumes.iter_volumes())):
            yield volumes_pb2.ListVolumesResponse(volumes=group)

    def list_foreign(
        self, _request: volumes_pb2.ListForeignRequest, _call: Call
    ) -> Iterator[volumes_pb2.ListForeignResponse]:
        """List what lies beside the volumes."""
        for group in batched(map(volume_messages.foreign_entry, self._volumes.iter_foreign())):
            yield volumes_pb2.ListForeignResponse(entries=group)

    def get(self, request: volumes_pb2.GetVolumeRequest, _call: Call) -> volumes_pb2.Volume:
        """Give a volume."""
        return volume_messages.volume(self._volumes.get(VolumeName.parse(request.name)))

    def usage(
        self, request: volumes_pb2.VolumeUsageRequest, _call: Call
    ) -> volumes_pb2.VolumeUsageResponse:
        """Measure a volume."""
        return volume_messages.volume_usage(self._volumes.usage(VolumeName.parse(request.name)))


def _preparing(report: types_pb2.Progress) -> volumes_pb2.PrepareVolumeResponse:
    return volumes_pb2.PrepareVolumeResponse(progress=report)


def _outcomes(
    outcomes: Iterator[tuple[VolumeName, CasError | None]], call: Call
) -> Iterator[volumes_pb2.VolumeOutcome]:
    for name, error in outcomes:
        yield volumes_pb2.VolumeOutcome(
            name=str(name), error=None if error is None else error_message(error)
        )
        call.cancellation.check()
