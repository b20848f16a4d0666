"""Unpacking layers: containerd reads the blob and writes the files itself."""

__all__ = ["Differ"]

from collections.abc import Callable, Sequence
from contextlib import suppress

import grpc

from cas._gen.containerd.services.diff.v1 import diff_pb2, diff_pb2_grpc
from cas.containerd.leases import Leases
from cas.containerd.patience import ending_with_operation, patient_seconds
from cas.containerd.translation import translated
from cas.containerd.transport import STREAM_SECONDS, Transport, complete
from cas.containerd.values import descriptor_message, descriptor_value, mount_messages
from cas.errors import BlobNotFoundError, LayerError
from cas.model.descriptor import Descriptor
from cas.model.records import LeaseID, Mount

_ANY_COMPRESSION = "application/vnd.oci.image.layer.v1.tar+gzip"
"""The type under which every version finds out from the bytes: gzip, zstd or plain."""

_NEARER = {
    grpc.StatusCode.NOT_FOUND: BlobNotFoundError,
    # A layer that cannot be unpacked has no status of its own.
    grpc.StatusCode.UNKNOWN: LayerError,
    grpc.StatusCode.INVALID_ARGUMENT: LayerError,
    grpc.StatusCode.FAILED_PRECONDITION: LayerError,
    grpc.StatusCode.UNIMPLEMENTED: LayerError,
}


class Differ:
    """The diff service of one namespace.

    Args:
        transport: Channel and namespace.
        leases: Of the same namespace.
    """

    def __init__(self, transport: Transport, leases: Leases) -> None:
        self._transport = transport
        self._leases = leases
        self._stub = diff_pb2_grpc.DiffStub(transport.channel)

    def apply(
        self,
        descriptor: Descriptor,
        mounts: Sequence[Mount],
        lease: LeaseID,
        *,
        sync: bool = True,
        watch: Callable[[], None],
        watch_seconds: float = 0.25,
    ) -> Descriptor:
        """Unpack a layer onto the mounts of a writable snapshot; blocks until it is done.

        After a failure, whatever ``watch`` raised included, the snapshot holds a part of the
        layer: remove it. containerd notices a cancelled call at its next read, so that files may
        appear for some milliseconds more.

        Args:
            descriptor: The layer's blob; its compression is found out from its bytes.
            mounts: As ``prepare`` gave them.
            lease: Holds blob and snapshot.
            sync: Sync the files before answering; containerd before 1.7.14 ignores it.
            watch: Called again and again meanwhile; what it raises ends the call.
            watch_seconds: Time between two calls of ``watch``.

        Returns:
            Digest (the diff ID's hex) and size of the uncompressed layer.

        Raises:
            LayerError: containerd cannot unpack it.
            NoSpaceError: The file system is full.
            BlobNotFoundError: The blob is not in the store.
            LeaseNotFoundError: There is no such lease.
        """
        request = diff_pb2.ApplyRequest(
            diff=descriptor_message(descriptor, media_type=_ANY_COMPRESSION),
            mounts=mount_messages(mounts),
            sync_fs=sync,
        )
        action = f"unpack layer {descriptor.digest}"
        with self._leases.holding(lease), translated(action, nearer=_NEARER):
            return descriptor_value(self._apply(request, lease, watch, watch_seconds).applied)

    def _apply(
        self,
        request: diff_pb2.ApplyRequest,
        lease: LeaseID,
        watch: Callable[[], None],
        watch_seconds: float,
    ) -> diff_pb2.ApplyResponse:
        call = self._stub.Apply.future(
            complete(request),
            timeout=patient_seconds(STREAM_SECONDS),
            metadata=self._transport.metadata(lease),
        )
        try:
            with ending_with_operation(call):
                while True:
                    with suppress(grpc.FutureTimeoutError):
                        return call.result(timeout=watch_seconds)
                    watch()
        finally:
            call.cancel()
