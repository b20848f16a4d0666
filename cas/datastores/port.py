"""What can be asked of a datastore; the same few calls for every kind.

Every method, and every step of a stream, raises classes of :mod:`cas.errors` only:

* ``SourceNotFoundError``: no such object;
* ``AuthenticationError``, ``UntrustedServerError``: who we are, or who they are, is not accepted;
* ``RateLimitedError``, ``SourceUnavailableError``, ``SourceStalledError``: temporary; the details
  hold ``retry_after_seconds`` where the datastore named a time;
* ``SourceProtocolError``: an answer that the protocol does not allow;
* ``SourceChangedError``: the object is not the one that ``validator`` is of;
* ``ResumeUnsupportedError``: the datastore cannot provably begin at ``offset``.

A datastore may be used by several threads at once. What waits for an answer ends when the operation
of its context is stopped (:mod:`cas.model.cancellation`), with ``InterruptedOperationError``.
"""

__all__ = ["Download", "Registry", "RemoteObject", "Source", "Validator"]

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, Self

from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.reference import ImageReference


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells two states of an object apart, as strongly as bytes would.

    Only the kind of datastore that gave it knows what it means; others compare and keep it.

    Args:
        kind: ``etag``, ``last-modified``, ``digest``, ``generation``, ``file``.
        value: As the datastore wrote it.
    """

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """What a datastore says about an object.

    Args:
        size: Bytes of the whole object; None if it does not say.
        validator: None if it has none that proves anything; a transfer then cannot be resumed.
        media_type: Empty if it does not say.
    """

    size: int | None
    validator: Validator | None
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """An object that is being read.

    Args:
        remote: The object as it is delivered, also when the reading begins in its middle.
        chunks: The raw bytes from the offset on, at most 1 MiB at a time, one pass. It ends
            without an error only where the datastore says that the object ends; what was
            delivered is not verified.
        abort: Makes a read that waits in another thread end at once, with or without an error;
            what was delivered until then is good. Never raises.
    """

    remote: RemoteObject
    chunks: Iterator[bytes] = field(repr=False)
    abort: Callable[[], None] = field(repr=False, default=lambda: None)


class Source(Protocol):
    """One datastore; leaving its ``with`` block closes it."""

    @property
    def name(self) -> str:
        """The datastore without any secret, for messages and records."""

    def stat(self, path: str, /) -> RemoteObject:
        """Ask about an object without reading it."""

    def open(
        self, path: str, /, *, offset: int = 0, validator: Validator | None = None
    ) -> AbstractContextManager[Download]:
        """Read an object from ``offset`` on.

        Args:
            path: As the datastore names it, below the URL of its settings.
            offset: First byte; above 0 only with a validator.
            validator: The state in which the object must be.
        """

    def close(self) -> None:
        """Give connections back. Idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Registry(Source, Protocol):
    """An OCI registry with its mirrors; paths are ``repository@digest`` and mean blobs."""

    def resolve(
        self, reference: ImageReference, /, *, platform: Platform | None = None
    ) -> Descriptor:
        """Say what a reference points to at this moment.

        Args:
            reference: With a tag or a digest; a digest wins.
            platform: Follow indexes to the manifest for this platform; None gives what the tag
                itself names, index or manifest. Raises ``PlatformNotFoundError``.
        """

    def manifest(self, repository: str, digest: Digest, /, *, limit: int) -> bytes:
        """Give a manifest or index whose bytes were compared with the digest.

        Raises ``LimitExceededError`` above ``limit`` bytes and ``DigestMismatchError``.
        """

    def blob(self, repository: str, descriptor: Descriptor, /, *, limit: int) -> bytes:
        """Give a small blob whose bytes were compared with the descriptor, as ``manifest``."""

    def find_tag(self, repository: str, tag: str, /) -> Descriptor | None:
        """Say what a tag points to; None if there is none."""

    def referrers(
        self, repository: str, digest: Digest, /, *, artifact_type: str = ""
    ) -> tuple[Descriptor, ...]:
        """List the manifests that name ``digest`` as their subject.

        From the referrers API where the registry has it, page after page, else from the tag that
        stands for it. There is a limit to their number; those of the artifact type come first, and
        are not hidden by others.
        """

    def blob_path(self, repository: str, digest: Digest, /) -> str:
        """Give the path under which :meth:`open` delivers a blob, or a manifest."""
