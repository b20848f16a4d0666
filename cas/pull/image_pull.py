"""An image from a registry to a name in the store.

Invariants: a tag is resolved once, and everything after goes by digest; what a signature policy
asks for is checked before anything is ingested; the name appears when all content is there and
durable. After an error or a kill no name has changed, and blobs of the store stay for up to a day.
What is on its way stays where the same call may succeed later, until it is gone on with or two
recoveries have met it; where it cannot, nothing stays.
"""

__all__ = ["ImagePull"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from cas.downloader.downloader import Downloader
from cas.errors import (
    CasError,
    ContentMissingError,
    InterruptedOperationError,
    SourceNotFoundError,
)
from cas.model.cancellation import Cancellation, JointCancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import SIGNATURE, SIGNED_BY
from cas.model.media_types import is_index, is_manifest
from cas.model.progress import NO_PROGRESS, Progress
from cas.model.records import ImageRecord, PulledImage
from cas.model.settings import Settings
from cas.model.signature_policy import PublicKey, Requirement
from cas.model.transfer_name import image_uuid
from cas.pull.fetched_content import FetchedContent
from cas.pull.image_request import ImageRequest
from cas.pull.remains import clearing
from cas.pull.room import Room
from cas.pull.signature_check import check_image
from cas.pull.total_progress import TotalProgress
from cas.pull.transfer import Agents, RemoteBlob, Transfer, Watch
from cas.store.backing import Backing
from cas.store.content.blob_batch import BlobBatch
from cas.store.content.ingest import Ingest, Ingested
from cas.store.content.sources import FileSource, Source
from cas.store.image.archives.archive import AbsentSource
from cas.store.image.images import Images
from cas.store.image.resolution import ImageResolution
from cas.store.leasing import Lease, Leasing
from cas.store.space import Space
from cas.verifier.verifier import Verifier

_PULL = "pull"


class ImagePull:
    """Pulls images into one store; may be used by several threads.

    Args:
        backing: The store.
        settings: Of the agents and of downloads.
        images: Its images.
    """

    def __init__(self, backing: Backing, settings: Settings, images: Images) -> None:
        self._backing = backing
        self._settings = settings
        self._images = images
        self._leasing = Leasing(backing)

    def run(self, request: ImageRequest) -> PulledImage:
        """See :meth:`cas.pull.pull.Pull.image`."""
        image = request.image or image_uuid(str(request.reference))
        signed = request.rule.require is not Requirement.NOTHING
        with (
            self._leasing.hold(_PULL, resumes=f"{_PULL} {image}") as lease,
            # Around the agents: when it clears, they write no more.
            clearing(self._backing.layout, image) as begun,
            Downloader(self._settings, request.source, launch=request.launch) as downloader,
            Verifier(self._settings, signatures=signed, launch=request.launch) as verifier,
        ):
            agents = Agents(downloader, verifier)
            run = _Run(self._backing, self._settings, request, image, lease, agents, begun)
            with run.looked_after():
                root, key = run.root()
                size = run.bring_all(root)
                record = self._adopt(request, root, lease, key)
        return PulledImage(record, size, run.downloaded, "" if key is None else key.name)

    def _adopt(
        self, request: ImageRequest, root: Descriptor, lease: Lease, key: PublicKey | None
    ) -> ImageRecord:
        request.cancel.check()
        signature = None if key is None else str(request.rule.require)
        labels = {SIGNATURE: signature, SIGNED_BY: None if key is None else key.name}
        return self._images.adopt(
            request.name, root, lease, platform=request.platform, labels=labels
        )


class _Run:
    """One call, under its lease, with its agents."""

    def __init__(
        self,
        backing: Backing,
        settings: Settings,
        request: ImageRequest,
        image: UUID,
        lease: Lease,
        agents: Agents,
        begun: set[Digest],
    ) -> None:
        self._backing = backing
        self._request = request
        self._lease = lease
        self._agents = agents
        self._begun = begun
        self._ingest = Ingest(backing)
        self._room = Room(Space(backing))
        self._parallel = settings.download.parallel
        self._stop = JointCancellation(request.cancel)
        self._lost: CasError | None = None
        self._progress = TotalProgress(request.progress, _PULL, request.name)
        self._transfer = Transfer(
            agents,
            backing.layout,
            image,
            attempts=settings.download.digest_attempts,
            watch=Watch(self._progress, self._arrived, self._keep_alive),
        )
        self.downloaded = 0
        """Bytes that came over the network."""

    @contextmanager
    def looked_after(self) -> Iterator[None]:
        """Let the loss of the lease be the error, rather than that the work was stopped for it."""
        try:
            yield
        except InterruptedOperationError:
            if self._lost is not None:
                raise self._lost from None
            raise

    def root(self) -> tuple[Descriptor, PublicKey | None]:
        """Resolve the reference and check what is signed."""
        request = self._request
        root = self._agents.downloader.resolve(request.reference, cancel=self._stop)
        key = check_image(
            self._agents,
            self._transfer,
            request.rule,
            repository=request.reference.path,
            root=root,
            limits=self._backing.limits,
            cancel=self._stop,
        )
        return root, key

    def bring_all(self, root: Descriptor) -> int:
        """Bring everything in that the platform needs; gives its size."""
        limits = self._backing.limits
        content = FetchedContent(
            self._backing.content, limits, root, lambda blob: self._bring(blob, self._stop)
        )
        request = self._request
        _, manifest = ImageResolution(content, limits).choose(request.name, root, request.platform)
        blobs = list(dict.fromkeys([manifest.config, *manifest.layers]))
        self._begun.update(blob.digest for blob in blobs)
        size = sum(blob.size for blob in blobs)
        needed = self._room_needed(blobs)
        with self._progress.of(size), self._room.of(needed, f"image {request.name}"):
            BlobBatch(self._parallel, self._stop).run(blobs, self._bring)
        self._ingest.settle()
        return size

    def _room_needed(self, blobs: Sequence[Descriptor]) -> int:
        missing = [blob for blob in blobs if self._present(blob) is None]
        return sum(self._transfer.room_needed(self._remote(blob)) for blob in missing)

    def _bring(self, descriptor: Descriptor, cancel: Cancellation) -> None:
        try:
            self._transfer.run(
                self._remote(descriptor),
                present=lambda: self._present(descriptor),
                take=lambda verified: self._take(descriptor, verified, cancel),
                cancel=cancel,
            )
        except SourceNotFoundError:
            if not descriptor.may_be_absent:
                raise

    def _remote(self, descriptor: Descriptor) -> RemoteBlob:
        document = is_manifest(descriptor.media_type) or is_index(descriptor.media_type)
        repository = self._request.reference.path
        return RemoteBlob(descriptor.digest, descriptor.size, repository, document=document)

    def _present(self, descriptor: Descriptor) -> Ingested | None:
        try:
            # A look is nothing to show.
            source = AbsentSource(f"blob {descriptor.digest}")
            found = self._store(descriptor, source, self._stop, progress=NO_PROGRESS)
        except ContentMissingError:
            return None
        self._progress.skip(str(descriptor.digest), descriptor.size)
        return found

    def _take(self, descriptor: Descriptor, verified: Path, cancel: Cancellation) -> Ingested:
        source = FileSource(verified)
        return self._store(descriptor, source, cancel, progress=self._progress, move=True)

    def _store(
        self,
        descriptor: Descriptor,
        source: Source,
        cancel: Cancellation,
        *,
        progress: Progress,
        move: bool = False,
    ) -> Ingested:
        return self._ingest.ingest(
            source,
            self._lease,
            expected=descriptor.digest,
            size=descriptor.size,
            media_type=descriptor.media_type,
            move=move,
            cancel=cancel,
            progress=progress,
        )

    def _arrived(self, amount: int) -> None:
        self.downloaded += amount
        self._room.use(amount)

    def _keep_alive(self) -> None:
        try:
            self._lease.keep_alive()
        except CasError as error:
            self._lost = error
            self._stop.set()
