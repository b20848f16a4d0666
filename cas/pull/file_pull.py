"""A single file from a datastore to a blob of the store."""

__all__ = ["FilePull", "FileRequest"]

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cas.datastores.settings import SourceSettings
from cas.downloader.downloader import Downloader
from cas.errors import BlobNotFoundError, ContentMissingError, SignatureError
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.labels import SIGNATURE, SIGNED_BY, SIGNED_BY_KEY
from cas.model.progress import Progress
from cas.model.settings import Settings
from cas.model.signature_policy import Requirement, Rule
from cas.pull.room import Room
from cas.pull.transfer import Agents, RemoteBlob, Transfer, Watch
from cas.store.backing import Backing
from cas.store.content.blobs import Blobs
from cas.store.content.intake import Ingested
from cas.store.content.sources import FileSource
from cas.store.image.archives.archive import AbsentSource
from cas.store.space import Space
from cas.verifier.verifier import Verifier

_SIGNATURE_SUFFIX = ".sig"
_SIGNATURE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class FileRequest:
    """One file to pull.

    Args:
        source: The datastore, with everything that opens it.
        path: As the datastore names it.
        digest: That it must have.
        size: Bytes it must have; None asks the datastore.
        media_type: Remembered with the blob; None for none.
        rule: What the signature policy asks of it.
        image: UUID for the file on its way.
        cancel: Stops the work.
        progress: Told of every step.
    """

    source: SourceSettings
    path: str
    digest: Digest
    size: int | None
    media_type: str | None
    rule: Rule
    image: UUID
    cancel: Cancellation
    progress: Progress


class FilePull:
    """Pulls files into one store; may be used by several threads.

    Args:
        backing: The store.
        settings: Of the agents and of downloads.
    """

    def __init__(self, backing: Backing, settings: Settings) -> None:
        self._backing = backing
        self._settings = settings
        self._blobs = Blobs(backing)

    def run(self, request: FileRequest) -> Ingested:
        """See :meth:`cas.pull.pull.Pull.file`."""
        found = self._present(request)
        if found is not None:
            return found
        signed = request.rule.require is not Requirement.NOTHING
        with (
            Downloader(self._settings, request.source) as downloader,
            Verifier(self._settings, signatures=signed) as verifier,
        ):
            return self._fetch(request, Agents(downloader, verifier))

    def _fetch(self, request: FileRequest, agents: Agents) -> Ingested:
        size, signature = request.size, b""
        if size is None:
            size = agents.downloader.stat(request.path, cancel=request.cancel).size
        if request.rule.require is not Requirement.NOTHING:
            signature = self._signature(request, agents)
        blob = RemoteBlob(request.digest, size, request.path)
        room = Room(Space(self._backing), request.cancel)
        transfer = Transfer(
            agents,
            self._backing.layout,
            request.image,
            attempts=self._settings.download.digest_attempts,
            watch=Watch(request.progress, room.use),
        )
        needed = None if size is None else transfer.room_needed(blob)
        with room.of(needed, f"file {request.path}"):
            return transfer.run(
                blob,
                present=lambda: self._present(request),
                take=lambda verified: self._take(request, agents, verified, signature),
                cancel=room.stop,
            )

    def _signature(self, request: FileRequest, agents: Agents) -> bytes:
        if request.rule.require is not Requirement.DETACHED:
            raise SignatureError(
                f"the signature policy asks for a {request.rule.require} signature of what matches "
                f"{request.rule.pattern!r}; a file has none, its signature is detached",
                digest=request.digest,
            )
        path = request.path + _SIGNATURE_SUFFIX
        return agents.downloader.read(path, limit=_SIGNATURE_BYTES, cancel=request.cancel)

    def _present(self, request: FileRequest) -> Ingested | None:
        if request.rule.require is not Requirement.NOTHING and not self._is_signed(request):
            return None
        try:
            return self._blobs.ingest_source(
                AbsentSource(f"blob {request.digest}"),
                digest=request.digest,
                size=request.size,
                media_type=request.media_type,
                cancel=request.cancel,
            )
        except ContentMissingError:
            return None

    def _is_signed(self, request: FileRequest) -> bool:
        """Whether one of the rule's keys, as it is today, was checked when the blob came in."""
        try:
            labels = self._backing.content.info(request.digest).labels
        except BlobNotFoundError:
            return False
        trusted = {key.fingerprint for key in request.rule.keys}
        asked = str(request.rule.require)
        return labels.get(SIGNATURE) == asked and labels.get(SIGNED_BY_KEY) in trusted

    def _take(
        self, request: FileRequest, agents: Agents, verified: Path, signature: bytes
    ) -> Ingested:
        labels = {}
        if request.rule.require is not Requirement.NOTHING:
            key = agents.verifier.check_detached(request.digest, signature, request.rule)
            labels = {
                SIGNATURE: str(request.rule.require),
                SIGNED_BY: key.name,
                SIGNED_BY_KEY: key.fingerprint,
            }
        return self._blobs.ingest_source(
            FileSource(verified),
            digest=request.digest,
            size=request.size,
            media_type=request.media_type,
            labels=labels,
            move=True,
            cancel=request.cancel,
            progress=request.progress,
        )
