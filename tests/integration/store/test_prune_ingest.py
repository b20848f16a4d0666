"""A prune and an ingest of the same blob."""

from pathlib import Path

from cas.containerd.client import Containerd
from cas.model.labels import GC_ROOT
from cas.model.settings import Settings
from cas.store.content.blobs import Blobs
from cas.store.filters import BlobFilters
from cas.store.prune.prune import Prune
from cas.store.prune.selection import Selection
from tests.support.stores import backing_for, is_stored


def test_blob_ingested_again_after_the_plan_is_skipped(
    containerd: Containerd, settings: Settings, tmp_path: Path
) -> None:
    """Who was told that the blob exists finds it after the prune."""
    backing = backing_for(containerd, settings)
    blobs, prune = Blobs(backing), Prune(backing)
    file = tmp_path / "f"
    file.write_bytes(b"wanted twice")
    digest = blobs.ingest(file).digest
    pinned = backing.content.info(digest).labels[GC_ROOT]
    plan = prune.plan(Selection(images=None, pins=BlobFilters()))
    assert [planned.name for planned in plan.objects] == [str(digest)]
    assert not blobs.ingest(file).created
    result = prune.execute(plan)
    assert [each.planned.name for each in result.skipped] == [str(digest)]
    assert is_stored(backing, digest)
    assert backing.content.info(digest).labels[GC_ROOT] == pinned
