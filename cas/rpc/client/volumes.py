"""Volumes, asked for from the service; :class:`cas.volumes.volumes.Volumes` has the promises."""

__all__ = ["VolumesClient"]

from collections.abc import Iterable, Iterator
from contextlib import closing

from cas._gen.cas.v1 import volumes_pb2, volumes_pb2_grpc
from cas.errors import CasError
from cas.model.cancellation import Cancellation
from cas.model.disk.record import DiskRequest
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.volume_name import VolumeName
from cas.rpc import volume_messages, volume_values
from cas.rpc.client.calls import Calls
from cas.rpc.status import error_from_message
from cas.volumes.status import ForeignEntry, VolumeStatus, VolumeUsage


class VolumesClient:
    """The volumes of a service's store; may be shared by threads.

    Args:
        calls: Makes the calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = volumes_pb2_grpc.VolumesStub(calls.channel)

    def prepare(
        self,
        name: VolumeName,
        image: str,
        *,
        read_only: bool = False,
        activate: bool = False,
        replace: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> VolumeStatus:
        """Make a container volume from an image; idempotent, existing data stays untouched.

        See :meth:`cas.volumes.volumes.Volumes.prepare` for what holds after a failure, for the
        arguments and for the errors.
        """
        request = volumes_pb2.PrepareVolumeRequest(
            name=str(name), image=image, read_only=read_only, activate=activate, replace=replace
        )
        outcome = self._calls.outcome(
            self._stub.Prepare,
            request,
            action=f"prepare volume {name}",
            progress=progress,
            cancel=cancel,
        )
        return volume_values.volume(outcome.volume)

    def prepare_disk(
        self,
        name: VolumeName,
        request: DiskRequest,
        *,
        replace: bool = False,
        cancel: Cancellation | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> VolumeStatus:
        """Make a disk volume; idempotent, existing data stays untouched.

        See :meth:`cas.volumes.volumes.Volumes.prepare_disk` for what holds after a failure, for
        the arguments and for the errors.
        """
        outcome = self._calls.outcome(
            self._stub.PrepareDisk,
            volume_messages.disk_request(name, request, replace=replace),
            action=f"prepare disk volume {name}",
            progress=progress,
            cancel=cancel,
        )
        return volume_values.volume(outcome.volume)

    def iter_volumes(self) -> Iterator[VolumeStatus]:
        """Stream every volume by name, damaged ones included."""
        request = volumes_pb2.ListVolumesRequest()
        with closing(
            self._calls.stream(self._stub.List, request, action="list volumes")
        ) as answers:
            for answer in answers:
                yield from map(volume_values.volume, answer.volumes)

    def iter_foreign(self) -> Iterator[ForeignEntry]:
        """Stream what lies in the directories of volumes and is no volume."""
        request = volumes_pb2.ListForeignRequest()
        action = "list what is no volume"
        with closing(self._calls.stream(self._stub.ListForeign, request, action=action)) as answers:
            for answer in answers:
                yield from map(volume_values.foreign_entry, answer.entries)

    def get(self, name: VolumeName) -> VolumeStatus:
        """Look at one volume.

        Raises:
            VolumeNotFoundError: There is none of this name.
        """
        request = volumes_pb2.GetVolumeRequest(name=str(name))
        action = f"look up volume {name}"
        return volume_values.volume(self._calls.unary(self._stub.Get, request, action=action))

    def activate(self, name: VolumeName) -> VolumeStatus:
        """Mount a volume; idempotent. After failure nothing is mounted.

        Raises:
            VolumeNotFoundError: There is none of this name.
            CorruptVolumeError: Its record, snapshot or mount point is gone.
            MountPointError: The mount point is occupied by something else.
            InUseError: Its writable layer is mounted elsewhere.
        """
        request = volumes_pb2.ActivateVolumeRequest(name=str(name))
        action = f"activate volume {name}"
        return volume_values.volume(self._calls.unary(self._stub.Activate, request, action=action))

    def deactivate(self, name: VolumeName) -> VolumeStatus:
        """Unmount a volume; idempotent. What was written is on disk then.

        Raises:
            VolumeNotFoundError: There is none of this name.
            InUseError: Processes use it; it stays mounted.
            MountPointError: What is mounted there is not the volume.
        """
        request = volumes_pb2.DeactivateVolumeRequest(name=str(name))
        action = f"deactivate volume {name}"
        return volume_values.volume(
            self._calls.unary(self._stub.Deactivate, request, action=action)
        )

    def activate_all(self) -> list[tuple[VolumeName, CasError | None]]:
        """Mount every volume, as after a reboot; one that fails does not keep the others back.

        Returns:
            Every volume, with the error if it could not be mounted.
        """
        request = volumes_pb2.ActivateAllVolumesRequest()
        return _outcomes(
            self._calls.stream(self._stub.ActivateAll, request, action="activate all volumes")
        )

    def deactivate_all(self) -> list[tuple[VolumeName, CasError | None]]:
        """Unmount every volume; one that fails does not keep the others back.

        Returns:
            Every volume, with the error if it could not be unmounted.
        """
        request = volumes_pb2.DeactivateAllVolumesRequest()
        return _outcomes(
            self._calls.stream(self._stub.DeactivateAll, request, action="deactivate all volumes")
        )

    def remove(self, name: VolumeName, *, force: bool = False) -> bool:
        """Remove a volume with its data; idempotent.

        Its space comes back with containerd's next collection.

        Args:
            name: The volume.
            force: Also when processes use it or it is damaged beyond recognition.

        Returns:
            Whether there was one.

        Raises:
            InUseError: It is in use and ``force`` is not set.
            MountPointError: Something else is mounted on it and ``force`` is not set.
            StoreMetadataLostError: containerd's database was emptied; nothing is removed.
        """
        request = volumes_pb2.RemoveVolumeRequest(name=str(name), force=force)
        action = f"remove volume {name}"
        return self._calls.unary(self._stub.Remove, request, action=action).removed

    def usage(self, name: VolumeName) -> VolumeUsage:
        """Measure a volume; walks the files of its writable layer.

        Raises:
            VolumeNotFoundError: There is none of this name.
            SnapshotNotFoundError: Its snapshot is gone.
        """
        request = volumes_pb2.VolumeUsageRequest(name=str(name))
        action = f"measure volume {name}"
        return volume_values.volume_usage(
            self._calls.unary(self._stub.Usage, request, action=action)
        )


def _outcomes(
    answers: Iterable[volumes_pb2.VolumeOutcome],
) -> list[tuple[VolumeName, CasError | None]]:
    return [
        (
            VolumeName.parse(answer.name),
            error_from_message(answer.error) if answer.HasField("error") else None,
        )
        for answer in answers
    ]
