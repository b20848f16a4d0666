"""From an archive with the image of a disk to a volume, in the way of EVE's tools."""

import json
from pathlib import Path

import pytest

from cas.errors import MalformedDocumentError
from cas.model.digest import Digest
from cas.model.disk.record import DiskRequest
from cas.model.media_types import OCI_CONFIG, OCI_MANIFEST
from cas.store.check.check import Check
from tests.support.disks import DISK_LAYER
from tests.support.volumes import Store, volume_name


def _layout(directory: Path, disk: bytes, config_type: str) -> Path:
    """Write an OCI layout with one manifest of one disk."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(media_type: str, data: bytes, **more: object) -> dict[str, object]:
        (blobs / Digest.of(data).hex).write_bytes(data)
        digest = str(Digest.of(data))
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    role = {"org.lfedge.eci.role": "disk-root"}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": []}})
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(config_type, config.encode()),
        "layers": [put(f"{DISK_LAYER}+qcow2", disk, annotations=role)],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [put(OCI_MANIFEST, json.dumps(manifest).encode())],
    }
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory


@pytest.mark.parametrize("config_type", [OCI_CONFIG, "application/vnd.lfedge.eci.config.v1+json"])
def test_disk_image_goes_from_an_archive_to_a_volume_and_out_again(
    store: Store, images: object, tmp_path: Path, config_type: str
) -> None:
    """Imported, checked, prepared, exported, imported; the store is healthy all the way."""
    data = images("qcow2")  # type: ignore[operator]
    layout = _layout(tmp_path / "layout", data, config_type)
    [record] = store.images.import_archive(layout, name="example.com/vm:1")
    check = Check(store.backing, platform=store.images.platform, judge=store.volumes.iter_volumes)
    assert list(check.run()) == []

    path = store.volumes.prepare_disk(volume_name(), DiskRequest(record.name)).rootfs

    assert path.read_bytes() == data
    store.images.export(record.name, tmp_path / "out.tar")
    [again] = store.images.import_archive(tmp_path / "out.tar", name="example.com/vm:2")
    assert again.target.digest == record.target.digest
    with pytest.raises(MalformedDocumentError, match=r"no.* container|artifact"):
        store.volumes.prepare(volume_name(), record.name)
    assert list(check.run()) == []
