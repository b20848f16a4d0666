"""Rebuilds a store whose containerd database was emptied, from what is still on disk.

Blobs come back whole: each is hashed and registered again where it lies. Images come back under the
names that volumes remember, and under a name made of their digest where nobody does. What was
written into volumes cannot be given back to them, since only the lost database knew which directory
is whose; so the snapshotter's directories are moved to the quarantine before anything is allowed to
collect them. The sentinel comes last: interrupted, the store is still lost and a repeat completes.
"""

__all__ = ["RECOVERED_NAME", "Rebuild"]

import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

from cas.errors import AlreadyExistsError, CasError, CorruptBlobError, InUseError, StorageError
from cas.fsops.durable import make_directory, rename_aside
from cas.fsops.mounts import iter_mounts
from cas.fsops.reading import regular_file
from cas.fsops.translation import translated
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.documents import Document, children, parse_document
from cas.model.labels import DOWNLOADED, GC_ROOT, PIN_OWNER, PIN_REASON, STORE_ID
from cas.model.media_types import OCI_INDEX, OCI_MANIFEST, is_index, is_manifest
from cas.model.progress import Progress
from cas.store.account.files import blob_path, scan_blob_files
from cas.store.account.graph import Kind
from cas.store.account.inventory import take_inventory
from cas.store.backing import Backing
from cas.store.check.data import hash_blob
from cas.store.check.repair_blob import make_safe
from cas.store.content.blob_files import BlobFiles
from cas.store.image.contents import StoreContents
from cas.store.image.document_walk import ImageGraph
from cas.store.leasing import Lease, Leasing
from cas.store.locking import Locks
from cas.store.sentinel import Sentinel

_log = logging.getLogger(__name__)

RECOVERED_NAME = "cas.lfedge.org/recovered"
"""Repository of images whose name is lost; the tag is the hexadecimal digest."""
_DIRECTORY_MODE = 0o700
_LOCK_SECONDS = 10.0
_ATTEMPTS = 3
_MARKER_BYTES = 64 * 1024
_RECOVERED = {PIN_OWNER: "cas", PIN_REASON: "recovered after the loss of containerd's database"}


class Rebuild:
    """Rebuilds one store.

    Args:
        backing: The store.
        platform: Of this machine.
        locks: Of the store.
        leasing: Makes the lease that holds everything until it has its references.
    """

    def __init__(
        self, backing: Backing, platform: Platform, locks: Locks, leasing: Leasing
    ) -> None:
        self._backing = backing
        self._platform = platform
        self._locks = locks
        self._leasing = leasing
        self._files = BlobFiles(backing)

    def run(self, cancel: Cancellation, progress: Progress) -> str:
        """Rebuild; gives what was done in one sentence.

        Raises:
            StorageError: containerd's files are out of reach.
            InUseError: Volumes are mounted, or other namespaces have snapshots; the directories
                cannot be moved.
            LockTimeoutError: Somebody works on the store.
            InterruptedOperationError: ``cancel`` was set; nothing was lost.
        """
        directory = self._backing.blobs_directory
        if directory is None:
            raise StorageError(
                "the store cannot be rebuilt from here: containerd's files are out of reach; run "
                "this where its root directory is visible under the same path"
            )
        self._refuse_others()
        with self._locks.store(shared=False, timeout_seconds=_LOCK_SECONDS):
            aside = self._set_snapshots_aside()
            with self._leasing.hold("rebuild") as lease:
                found = [
                    digest
                    for digest in self._blobs(directory, cancel, progress)
                    if self._adopt(directory, digest, lease)
                ]
                names = self._name_images(self._documents(found))
                pinned = self._pin_the_rest()
                self._establish_sentinel(lease)
        where = f"; the data of volumes is in {str(aside)!r}" if aside else ""
        return f"{len(found)} blobs registered, {names} images named, {pinned} blobs pinned{where}"

    def _refuse_others(self) -> None:
        """The snapshotter's directories belong to all namespaces of one database."""
        others = set(self._backing.namespaces.iter_namespaces()) - {self._backing.namespace}
        if others:
            raise InUseError(
                f"containerd's database knows other namespaces ({', '.join(sorted(others))}), so "
                f"it was not emptied; to rebuild namespace {self._backing.namespace!r} would take "
                "their snapshots away; use the right namespace, or remove the others first",
                namespace=self._backing.namespace,
            )

    def _set_snapshots_aside(self) -> Path | None:
        root = self._backing.layout.case / (
            f"io.containerd.snapshotter.v1.{self._backing.snapshotter}"
        )
        snapshots = root / "snapshots"
        if not snapshots.is_dir():
            return None
        self._refuse_mounts(snapshots)
        names = sorted(path.name for path in snapshots.iterdir())
        if not names:
            return None
        aside = self._backing.layout.quarantine / f"snapshots.{secrets.token_hex(4)}"
        make_directory(aside, mode=_DIRECTORY_MODE, parents=True)
        for name in names:
            rename_aside(snapshots / name, aside / name)
        _log.warning("snapshots without record set aside path=%s count=%d", aside, len(names))
        return aside

    def _refuse_mounts(self, snapshots: Path) -> None:
        resolved = str(snapshots.resolve())
        for mount in iter_mounts():
            if mount.fs_type == "overlay" and resolved in mount.options:
                raise InUseError(
                    f"{str(mount.path)!r} is mounted from a snapshot that the lost database knew; "
                    "save what you need from it, unmount it, and run this again",
                    path=mount.path,
                )

    def _blobs(self, directory: Path, cancel: Cancellation, progress: Progress) -> Iterator[Digest]:
        """Give every file that has the bytes of its name; the others go to the quarantine."""
        for raw in sorted(scan_blob_files(directory).digests):
            digest = Digest(raw.hex())
            cancel.check()
            try:
                actual, _ = hash_blob(self._backing, digest, cancel, progress)
            except (CorruptBlobError, StorageError) as error:
                _log.warning("blob unreadable digest=%s error=%s", digest, error)
                actual = None
            if actual == digest:
                make_safe(blob_path(directory, digest))
                yield digest
            else:
                self._files.set_aside(digest)

    def _adopt(self, directory: Path, digest: Digest, lease: Lease) -> bool:
        lease.keep_alive()
        path = blob_path(directory, digest)
        for _ in range(_ATTEMPTS):
            with translated("inspect", path):
                size = path.stat().st_size
            ref = f"cas-rebuild-{digest.hex}"
            if self._backing.content.adopt(ref, lease.id, digest, size, {}):
                lease.pin_blob(digest)
                return True
        raise StorageError(f"containerd does not see the file of blob {digest}", path=path)

    def _documents(self, digests: list[Digest]) -> dict[Digest, tuple[Descriptor, Document]]:
        found = {}
        for digest in digests:
            descriptor = self._descriptor(digest)
            if descriptor is not None:
                try:
                    raw = self._read(descriptor)
                    document = parse_document(raw, descriptor, self._backing.limits)
                except CasError as error:
                    _log.debug("blob is no document digest=%s reason=%s", digest, error)
                else:
                    found[digest] = (descriptor, document)
        return found

    def _read(self, descriptor: Descriptor) -> bytes:
        limit = self._backing.limits.document_bytes
        return self._backing.content.read_all(descriptor.digest, limit=limit)

    def _descriptor(self, digest: Digest) -> Descriptor | None:
        """Guess whether a blob is a manifest or index, by what it says of itself."""
        size = self._backing.content.info(digest).size
        if not 0 < size <= self._backing.limits.document_bytes:
            return None
        raw = self._backing.content.read_all(digest, limit=size)
        if not raw.lstrip().startswith(b"{"):
            return None
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            return None
        media_type = document.get("mediaType")
        if not isinstance(media_type, str):
            media_type = OCI_INDEX if "manifests" in document else OCI_MANIFEST
        if not is_manifest(media_type) and not is_index(media_type):
            return None
        return Descriptor(media_type, digest, size)

    def _name_images(self, documents: dict[Digest, tuple[Descriptor, Document]]) -> int:
        named = 0
        taken: set[Digest] = set()
        volumes = sorted(self._backing.volumes(), key=lambda record: record.created, reverse=True)
        names: dict[str, Digest] = {}
        for record in volumes:
            if record.root_digest is not None and not record.converted:
                names.setdefault(record.image, record.root_digest)
        inner = {
            child.descriptor.digest
            for _, document in documents.values()
            for child in children(document)
        }
        for name, digest in names.items():
            if digest in documents and self._name(name, documents[digest][0]):
                named += 1
                taken.add(digest)
        for digest in documents.keys() - inner - taken:
            named += self._name(f"{RECOVERED_NAME}:{digest.hex}", documents[digest][0])
        return named

    def _name(self, name: str, target: Descriptor) -> bool:
        """Label an image's blobs and record its name; False if it is not whole.

        Not through the use cases on images: those refuse to write into a store that is lost.
        """
        contents = StoreContents(self._backing)
        graph = ImageGraph(contents, self._backing.limits, self._platform)
        try:
            for blob in graph.plan(target):
                self._backing.content.update_labels(blob.descriptor.digest, {**blob.labels})
            self._backing.images.create(name, target, {DOWNLOADED: "true"})
        except AlreadyExistsError:
            _log.debug("image was recovered before image=%s", name)
        except CasError as error:
            # Incomplete, or not an image: its blobs are pinned like everything without a name.
            _log.warning("image not recovered image=%s error=%s", name, error)
            return False
        return True

    def _pin_the_rest(self) -> int:
        """Root every blob that no image holds, so that nothing acknowledged is collected."""
        now = self._backing.clock()
        inventory = take_inventory(self._backing, now=now)
        marks = inventory.graph.marks()
        inventory.graph.mark(inventory.images, marks)
        inventory.graph.mark(inventory.pins, marks)
        rest = [node for node in inventory.graph.nodes(Kind.BLOB) if not marks[node]]
        for node in rest:
            digest = Digest.parse(inventory.graph.name(node))
            self._backing.content.update_labels(digest, {GC_ROOT: now.isoformat(), **_RECOVERED})
        return len(rest)

    def _establish_sentinel(self, lease: Lease) -> None:
        """Make the store known again under its old id, so that its old sentinel serves again."""
        store_id = self._old_store_id()
        if store_id is not None:
            namespace = self._backing.namespace
            self._backing.namespaces.set_labels(namespace, {STORE_ID: store_id})
        Sentinel(self._backing).establish(lease)

    def _old_store_id(self) -> str | None:
        path = self._backing.layout.store_marker(self._backing.namespace)
        with translated("read", path):
            try:
                with regular_file(path) as file:
                    document = json.loads(file.read(_MARKER_BYTES))
            except FileNotFoundError:
                return None
            except ValueError:
                # A damaged marker costs nothing but a new id.
                return None
        store_id = document.get("storeId") if isinstance(document, dict) else None
        return store_id if isinstance(store_id, str) and store_id else None
