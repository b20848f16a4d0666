"""From an archive with the image of a disk to a volume, in the way of EVE's tools."""

from pathlib import Path

import pytest

from cas.errors import MalformedDocumentError
from cas.model.disk.record import DiskRequest
from cas.model.media_types import OCI_CONFIG
from cas.store.check.check import Check
from tests.support.disks import DISK_LAYER, disk_layout
from tests.support.volumes import Store, volume_name


@pytest.mark.parametrize("config_type", [OCI_CONFIG, "application/vnd.lfedge.eci.config.v1+json"])
def test_disk_image_goes_from_an_archive_to_a_volume_and_out_again(
    store: Store, images: object, tmp_path: Path, config_type: str
) -> None:
    """Imported, checked, prepared, exported, imported; the store is healthy all the way."""
    data = images("qcow2")  # type: ignore[operator]
    layer = (f"{DISK_LAYER}+qcow2", data, {"org.lfedge.eci.role": "disk-root"})
    layout = disk_layout(tmp_path / "layout", layer, config_type=config_type)
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
