"""containerd's namespaces: whose objects are apart, though equal blobs share their file."""

__all__ = ["Namespaces", "check_namespace"]

import re
from collections.abc import Iterator, Mapping

import grpc

from cas._gen.containerd.services.namespaces.v1 import namespace_pb2, namespace_pb2_grpc
from cas.containerd.translation import translated
from cas.containerd.transport import Transport
from cas.containerd.values import checked_labels, label_changes
from cas.errors import AlreadyExistsError, InUseError, InvalidNameError, NotFoundError

_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*", re.ASCII)
_MAX_NAME_LENGTH = 76


def check_namespace(name: str) -> None:
    """Refuse a name that containerd cannot use; asked to label one, it would store it first.

    Raises:
        InvalidNameError: The name breaks containerd's rule for identifiers.

    Source: containerd, package ``identifiers``.
    """
    if len(name) > _MAX_NAME_LENGTH or _NAME.fullmatch(name) is None:
        raise InvalidNameError(
            f"namespace {name[:100]!r} is not made of letters and digits, joined by single dots, "
            f"dashes or underscores, of at most {_MAX_NAME_LENGTH} characters",
            value=name[:100],
        )


class Namespaces:
    """All namespaces of the daemon.

    Args:
        transport: The channel.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = namespace_pb2_grpc.NamespacesStub(transport.channel)

    def labels(self, name: str) -> Mapping[str, str]:
        """Give a namespace's labels; none for a namespace that does not exist."""
        request = namespace_pb2.GetNamespaceRequest(name=name)
        try:
            with translated(f"get namespace {name!r}"):
                return dict(self._transport.unary(self._stub.Get, request).namespace.labels)
        except NotFoundError:
            return {}

    def set_labels(self, name: str, labels: Mapping[str, str]) -> None:
        """Set labels, leave the others, make the namespace if there is none. Idempotent.

        Raises:
            InvalidNameError: The name cannot be a namespace's.
        """
        check_namespace(name)
        try:
            self._update(name, labels)
        except NotFoundError:
            try:
                self._create(name, labels)
            except AlreadyExistsError:
                self._update(name, labels)

    def iter_namespaces(self) -> Iterator[str]:
        """Yield the names."""
        with translated("list namespaces"):
            answer = self._transport.unary(self._stub.List, namespace_pb2.ListNamespacesRequest())
        for namespace in answer.namespaces:
            yield namespace.name

    def delete(self, name: str) -> bool:
        """Delete a namespace. Idempotent.

        Returns:
            Whether it existed.

        Raises:
            InUseError: There are objects in it.
        """
        request = namespace_pb2.DeleteNamespaceRequest(name=name)
        nearer = {grpc.StatusCode.FAILED_PRECONDITION: InUseError}
        try:
            with translated(f"delete namespace {name!r}", nearer=nearer):
                self._transport.unary(self._stub.Delete, request)
        except NotFoundError:
            return False
        return True

    def _update(self, name: str, labels: Mapping[str, str]) -> None:
        changed, mask = label_changes(labels)
        request = namespace_pb2.UpdateNamespaceRequest(
            namespace=namespace_pb2.Namespace(name=name, labels=changed), update_mask=mask
        )
        with translated(f"label namespace {name!r}"):
            self._transport.unary(self._stub.Update, request)

    def _create(self, name: str, labels: Mapping[str, str]) -> None:
        request = namespace_pb2.CreateNamespaceRequest(
            namespace=namespace_pb2.Namespace(name=name, labels=checked_labels(labels))
        )
        with translated(f"create namespace {name!r}"):
            self._transport.unary(self._stub.Create, request)
