"""The downloader, as those with the rights of root use it."""

__all__ = ["Downloader"]

from collections.abc import Callable, Mapping
from typing import Self

import msgspec

from cas.agent.process import AgentProcess
from cas.agent.program import Launch, launch_agent
from cas.datastores.retry import RetryPolicy
from cas.datastores.settings import SourceSettings, encode_settings
from cas.datastores.terms import FetchPolicy
from cas.downloader.program import downloader_program
from cas.downloader.requests import (
    Content,
    DescriptorForm,
    Descriptors,
    Fetch,
    Fetched,
    FindTag,
    Options,
    Read,
    Referrers,
    Resolve,
    Stat,
    Status,
)
from cas.errors import CasError, DigestMismatchError, SourceProtocolError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.download_settings import DownloadSettings
from cas.model.reference import ImageReference
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName


class Downloader:
    """A running downloader for one datastore; a context manager, whose process lives as long.

    May be used by several threads; the one that enters the context has to stay until the others
    are done. Besides what is listed, every call raises what the datastore makes of it, as
    :mod:`cas.datastores.port` says, and ``AgentError`` when the process ended.

    Args:
        settings: Layout, accounts, limits.
        source: The datastore, with everything that opens it.
        launch: Gives its process.
    """

    def __init__(
        self, settings: Settings, source: SourceSettings, *, launch: Launch = launch_agent
    ) -> None:
        self._limits = settings.limits
        largest = max(self._limits.blob_bytes, self._limits.document_bytes)
        options = Options(msgspec.Raw(encode_settings(source)), _policy(settings.download), largest)
        self._process = AgentProcess(
            downloader_program(settings), msgspec.json.encode(options), launch=launch
        )

    def __enter__(self) -> Self:
        """Start the process; raises as :meth:`cas.agent.process.AgentProcess.__enter__`."""
        self._process.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    def missing(self) -> Mapping[str, str]:
        """Wait until it is confined; see :meth:`cas.agent.process.AgentProcess.missing`."""
        return self._process.missing()

    def fetch(
        self,
        name: TransferName,
        path: str,
        size: int | None = None,
        *,
        document: bool = False,
        cancel: Cancellation | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Fetched:
        """Bring an object into the downloader's directory, durably, unverified.

        Goes on with what an earlier call left, also one that was killed.

        Args:
            name: Of the file; its digest is the one that the object claims to have.
            path: As the datastore names it; of a registry, the repository.
            size: Bytes it must have; None if nobody knows.
            document: It is a manifest or index of a registry.
            cancel: Ends the call; what came is kept for the next.
            progress: Told of bytes that are there and bytes in all.

        Raises:
            NoSpaceError: No room; what came is kept.
            SizeMismatchError: The object has another size.
            LimitExceededError: It is larger than a blob may be.
            InterruptedOperationError: ``cancel`` was set.
        """
        most = self._limits.document_bytes if document else self._limits.blob_bytes
        return self._process.call(
            Fetch(str(name), path, size, most, document),
            Fetched,
            cancel=cancel,
            progress=progress,
        )

    def stat(self, path: str, *, cancel: Cancellation | None = None) -> Status:
        """Ask about an object without reading it."""
        return self._process.call(Stat(path), Status, cancel=cancel)

    def read(self, path: str, *, limit: int, cancel: Cancellation | None = None) -> bytes:
        """Give a small object, unverified: for what proves itself, such as a signature.

        Raises:
            LimitExceededError: It has more than ``limit`` bytes.
        """
        return self._process.call(Read(path, limit), Content, cancel=cancel).data

    def resolve(
        self, reference: ImageReference, *, cancel: Cancellation | None = None
    ) -> Descriptor:
        """Say what a reference points to at this moment, manifest or index.

        Raises:
            DigestMismatchError: The reference has a digest, and the answer another.
        """
        asked = Resolve(str(reference))
        found = _read(self._process.call(asked, DescriptorForm, cancel=cancel))
        # Everything below a root is proved against it, so nothing else would notice.
        if reference.digest and str(found.digest) != reference.digest:
            raise DigestMismatchError(
                f"the downloader answers {found.digest} for {reference}, which is pinned to "
                f"{reference.digest}",
                reference=reference,
                expected=reference.digest,
                actual=found.digest,
            )
        return found

    def find_tag(
        self, repository: str, tag: str, *, cancel: Cancellation | None = None
    ) -> Descriptor | None:
        """Say what a tag points to; None if there is none."""
        found = self._process.call(FindTag(repository, tag), Descriptors, cancel=cancel).found
        return _read(found[0]) if found else None

    def referrers(
        self,
        repository: str,
        digest: Digest,
        *,
        artifact_type: str = "",
        cancel: Cancellation | None = None,
    ) -> list[Descriptor]:
        """List the manifests that name ``digest`` as their subject, those of a type first."""
        asked = Referrers(repository, str(digest), artifact_type)
        return [_read(each) for each in self._process.call(asked, Descriptors, cancel=cancel).found]


def _policy(download: DownloadSettings) -> FetchPolicy:
    return FetchPolicy(
        retry=RetryPolicy(attempts=download.attempts),
        sync_bytes=download.sync_bytes,
        stall_seconds=download.stall_seconds,
    )


def _read(form: DescriptorForm) -> Descriptor:
    """Read what a process says that talks to strangers."""
    try:
        return form.read()
    except CasError as error:
        raise SourceProtocolError(f"the datastore names content oddly: {error.message}") from error
