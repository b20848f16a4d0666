"""Leases: what holds content and snapshots until something refers to them."""

__all__ = ["Leases"]

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc

from cas._gen.containerd.services.leases.v1 import leases_pb2, leases_pb2_grpc
from cas.containerd.translation import translated
from cas.containerd.transport import COLLECTION_SECONDS, Transport
from cas.containerd.values import checked_labels, instant, quoted
from cas.errors import DaemonError, LeaseNotFoundError, NotFoundError
from cas.model.labels import GC_EXPIRE
from cas.model.records import LeaseID, LeaseInfo, LeaseResource

_LEASE_LOST = {grpc.StatusCode.NOT_FOUND: LeaseNotFoundError}
_LONG_AGO = "1970-01-01T00:00:00Z"
_COLLECTION_ATTEMPTS = 10


class Leases:
    """The leases of one namespace.

    Args:
        transport: Channel and namespace.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = leases_pb2_grpc.LeasesStub(transport.channel)

    def create(self, lease_id: LeaseID, labels: Mapping[str, str]) -> LeaseInfo:
        """Create a lease.

        Raises:
            AlreadyExistsError: There is one of this id.
        """
        request = leases_pb2.CreateRequest(id=lease_id, labels=checked_labels(labels))
        with translated(f"create lease {lease_id}"):
            return _info(self._transport.unary(self._stub.Create, request).lease)

    def delete(self, lease_id: LeaseID, *, sync: bool = False) -> bool:
        """Delete a lease; what only it held goes with the next collection. Idempotent.

        Args:
            lease_id: The lease.
            sync: Run a collection and wait for it; only if the lease existed.

        Returns:
            Whether the lease existed.
        """
        seconds = COLLECTION_SECONDS if sync else None
        request = leases_pb2.DeleteRequest(id=lease_id, sync=sync)
        try:
            with translated(f"delete lease {lease_id}", nearer=_LEASE_LOST):
                self._transport.unary(self._stub.Delete, request, seconds=seconds)
        except LeaseNotFoundError:
            return False
        return True

    def iter_leases(self, filters: Sequence[str] = ()) -> Iterator[LeaseInfo]:
        """Yield the leases that match any of the filters; all without a filter."""
        request = leases_pb2.ListRequest(filters=filters)
        with translated("list leases"):
            answer = self._transport.unary(self._stub.List, request)
        for lease in answer.leases:
            yield _info(lease)

    def exists(self, lease_id: LeaseID) -> bool:
        """Tell whether the lease exists."""
        return any(True for _ in self.iter_leases([f"id=={quoted(lease_id)}"]))

    def add_resource(self, lease_id: LeaseID, resource: LeaseResource) -> None:
        """Pin a resource, which need not exist yet. Idempotent.

        Raises:
            LeaseNotFoundError: There is no such lease.
        """
        request = leases_pb2.AddResourceRequest(
            id=lease_id, resource=leases_pb2.Resource(id=resource.id, type=resource.type)
        )
        action = f"add {resource.type} {resource.id} to lease {lease_id}"
        with translated(action, nearer=_LEASE_LOST):
            self._transport.unary(self._stub.AddResource, request)

    def iter_resources(self, lease_id: LeaseID) -> Iterator[LeaseResource]:
        """Yield what the lease holds.

        Raises:
            LeaseNotFoundError: There is no such lease.
        """
        request = leases_pb2.ListResourcesRequest(id=lease_id)
        with translated(f"list resources of lease {lease_id}", nearer=_LEASE_LOST):
            answer = self._transport.unary(self._stub.ListResources, request)
        for resource in answer.resources:
            yield LeaseResource(type=resource.type, id=resource.id)

    def collect_garbage(self) -> None:
        """Run a garbage collection over all namespaces and wait until files are deleted, too.

        containerd answers success even if deleting files failed, as it does on a full disk:
        whoever needs the space looks. See ``Snapshots.request_sweep`` for the second attempt.

        Raises:
            DaemonError: Other collections took every lease that should have asked for ours.
        """
        for _ in range(_COLLECTION_ATTEMPTS):
            # Deleting a lease is the one way to ask. It is born expired so that any collection
            # removes it if we die now; such a collection may also come before our deletion.
            lease_id = LeaseID(f"cas-collect-{uuid.uuid4().hex}")
            self.create(lease_id, {GC_EXPIRE: _LONG_AGO})
            if self.delete(lease_id, sync=True):
                return
        raise DaemonError(
            f"cannot collect garbage: {_COLLECTION_ATTEMPTS} requests were overtaken by other "
            "collections"
        )

    @contextmanager
    def holding(self, lease_id: LeaseID | None) -> Iterator[None]:
        """Turn the not-found of a call under a lease, if there is one, into a lost lease if it is.

        Raises:
            LeaseNotFoundError: A call inside found nothing, and the lease is gone.
        """
        try:
            yield
        except NotFoundError as error:
            if lease_id is None or self.exists(lease_id):
                raise
            raise LeaseNotFoundError(
                f"lease {lease_id} is gone, and with it what it protected; start the operation "
                "again",
                lease=lease_id,
            ) from error


def _info(lease: leases_pb2.Lease) -> LeaseInfo:
    return LeaseInfo(
        id=LeaseID(lease.id), created=instant(lease.created_at), labels=dict(lease.labels)
    )
