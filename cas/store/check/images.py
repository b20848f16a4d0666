"""Is every image whole, held together by its labels, and unpacked durably? Looks only."""

__all__ = ["check_images", "check_layers"]

from collections.abc import Iterator

from cas.errors import (
    BlobNotFoundError,
    ContentMissingError,
    ImageNotFoundError,
    IntegrityError,
)
from cas.model.cancellation import check_operation, while_wanted
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.labels import GC_REF_CONTENT, MEDIA_TYPE, NOT_FETCHED
from cas.model.media_types import is_config, is_index, is_manifest
from cas.model.records import ImageRecord
from cas.store.account.graph import Kind
from cas.store.account.inventory import Inventory
from cas.store.backing import Backing
from cas.store.check.findings import Finding, Hits, Problem, Severity
from cas.store.image.contents import StoreContents
from cas.store.image.document_walk import ImageGraph, PlannedBlob

_MOST_MISSING = 1000
"""Absent blobs of one image that are named; more are as good as all."""


class _Contents(StoreContents):
    """The store's blobs, with absent leaves passed off as present so that one walk finds all."""

    def __init__(self, backing: Backing) -> None:
        super().__init__(backing)
        self.absent: dict[Digest, Descriptor] = {}
        self.refused: dict[Digest, Descriptor] = {}

    def has(self, descriptor: Descriptor) -> bool:
        if descriptor.digest in self.absent or super().has(descriptor):
            return True
        self.refused[descriptor.digest] = descriptor
        return False


def check_images(
    backing: Backing, inventory: Inventory, platform: Platform, hits: Hits
) -> Iterator[Finding]:
    """Walk every image from its name down.

    Raises:
        UnavailableError: containerd does not answer.
    """
    walked: set[Descriptor] = set()
    for image in while_wanted(inventory.images.values()):
        if not _is_usable(image.name):
            yield Finding(
                Problem.IMAGE_NAME,
                invariant=7,
                severity=Severity.ERROR,
                object=image.name,
                message=f"image {image.name!r} has a name that nobody can type",
                advice="'cas check --fix' removes the name; its content goes if nothing needs it",
                fixable=True,
            )
        if image.target not in walked:
            walked.add(image.target)
            for finding in _check_image(backing, image, platform, hits):
                # Removed or moved since the list was read: then nothing of it need be there.
                if _is_current(backing, image):
                    yield finding


def _is_usable(name: str) -> bool:
    return bool(name.strip()) and name.isprintable()


def _is_current(backing: Backing, image: ImageRecord) -> bool:
    try:
        return backing.images.get(image.name).target == image.target
    except ImageNotFoundError:
        return False


def _check_image(
    backing: Backing, image: ImageRecord, platform: Platform, hits: Hits
) -> Iterator[Finding]:
    contents = _Contents(backing)
    graph = ImageGraph(contents, backing.limits, platform)
    planned: list[PlannedBlob] = []
    try:
        planned = _plan(graph, contents, image.target)
    except ContentMissingError as error:
        descriptor = _refused(error, contents) or image.target
        contents.absent[descriptor.digest] = descriptor
    except IntegrityError as error:
        yield Finding(
            Problem.IMAGE_DOCUMENT,
            invariant=3,
            severity=Severity.ERROR,
            object=image.name,
            message=f"image {image.name!r} cannot be read: {error.message}",
            advice="import or pull the image again",
            fixable=False,
            **hits.of(Kind.BLOB, str(image.target.digest)),
        )
    for digest in contents.absent:
        yield _absent(image, digest, hits)
    for blob in planned:
        if blob.is_document and blob.descriptor.digest not in contents.absent:
            yield from _check_labels(backing, image, blob, hits)


def _plan(graph: ImageGraph, contents: _Contents, root: Descriptor) -> list[PlannedBlob]:
    """Plan the image, collecting absent leaves on the way."""
    while True:
        try:
            return graph.plan(root)
        except ContentMissingError as error:
            refused = _refused(error, contents)
            if refused is None or len(contents.absent) >= _MOST_MISSING or not _is_leaf(refused):
                raise
            contents.absent[refused.digest] = refused


def _refused(error: ContentMissingError, contents: _Contents) -> Descriptor | None:
    digest = error.details.get("digest")
    return contents.refused.get(digest) if isinstance(digest, Digest) else None


def _is_leaf(descriptor: Descriptor) -> bool:
    """Whether nobody will try to read it."""
    kind = descriptor.media_type
    return not (is_config(kind) or is_manifest(kind) or is_index(kind))


def _absent(image: ImageRecord, digest: Digest, hits: Hits) -> Finding:
    return Finding(
        Problem.IMAGE_CONTENT_MISSING,
        invariant=3,
        severity=Severity.ERROR,
        object=str(digest),
        message=f"blob {digest}, which image {image.name!r} needs, is not in the store",
        advice="import or pull the image again",
        fixable=False,
        **hits.of(Kind.BLOB, str(digest)),
    )


def _check_labels(
    backing: Backing, image: ImageRecord, blob: PlannedBlob, hits: Hits
) -> Iterator[Finding]:
    """Compare the references that containerd follows with those in the document."""
    digest = blob.descriptor.digest
    check_operation()
    try:
        labels = backing.content.info(digest).labels
    except BlobNotFoundError:
        return
    kept = {value for key, value in labels.items() if key.startswith(GC_REF_CONTENT)}
    unmarked = [
        value
        for key, value in blob.labels.items()
        if (key.startswith(GC_REF_CONTENT) and value not in kept)
        # Other clients leave holes without a word, and may.
        or (key.startswith(NOT_FETCHED) and key not in labels and MEDIA_TYPE in labels)
    ]
    if unmarked:
        yield Finding(
            Problem.IMAGE_LABELS,
            invariant=3,
            severity=Severity.ERROR,
            object=str(digest),
            message=f"{digest} of image {image.name!r} does not refer to {', '.join(unmarked)} by "
            "label, so that a collection may take what the image needs",
            advice="'cas check --fix' sets the labels again",
            fixable=True,
            **hits.of(Kind.BLOB, str(digest)),
        )


def check_layers(inventory: Inventory, hits: Hits) -> Iterator[Finding]:
    """Find unpacked layers that an image or volume uses and for whose files nobody vouches.

    What stands below a layer that was synced was synced with it.
    """
    graph = inventory.graph
    durable = graph.marks()
    graph.mark((node for node, synced in inventory.committed_snapshots.items() if synced), durable)
    for node in inventory.committed_snapshots:
        if durable[node]:
            continue
        hit = hits.of(Kind.SNAPSHOT, graph.name(node))
        if hit["images"] or hit["volumes"]:
            yield Finding(
                Problem.LAYER_NOT_DURABLE,
                invariant=2,
                severity=Severity.WARNING,
                object=graph.name(node),
                message=f"layer {graph.name(node)} was unpacked by another client and not synced; "
                "a power cut may have emptied its files",
                advice="'cas check --fix' syncs it if it was made since the last boot, and else "
                "unpacks it again where no volume stands on it",
                fixable=bool(hit["images"]),
                **hit,
            )
