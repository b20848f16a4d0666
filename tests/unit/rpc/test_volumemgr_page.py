"""The page that maps EVE's interface to calls names calls that exist, and all of EVE's methods."""

import re
from pathlib import Path

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, vault_pb2, volumes_pb2

_PAGE = (Path(__file__).parents[3] / "docs/volumemgr.md").read_text()
_DECLARED = {
    f"{service.name}.{method.name}"
    for document in (blobs_pb2, images_pb2, volumes_pb2, store_pb2, vault_pb2)
    for service in document.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# Of the interface CAS in EVE's pillar, at 2c6b41543.
_EVE = {
    "CheckBlobExists", "GetBlobInfo", "ListBlobInfo", "ListBlobsMediaTypes", "IngestBlob",
    "UpdateBlobInfo", "ReadBlob", "RemoveBlob", "Children", "CreateImage", "GetImageHash",
    "GetImageLabels", "ListImages", "RemoveImage", "ReplaceImage", "CreateSnapshotForImage",
    "MountSnapshot", "SnapshotUsage", "ListSnapshots", "RemoveSnapshot", "PrepareContainerRootDir",
    "UnmountContainerRootDir", "RemoveContainerRootDir", "IngestBlobsAndCreateImage", "Resolver",
    "CtrNewUserServicesCtx", "CloseClient",
}  # fmt: skip


def test_page_names_every_call_and_only_calls_that_exist() -> None:
    """A call that is renamed, added or removed changes the page."""
    assert set(re.findall(r"`([A-Z]\w+\.[A-Z]\w+)`", _PAGE)) == _DECLARED


def test_page_has_a_row_for_every_method_of_eve() -> None:
    """Each once."""
    rows = re.findall(r"^\| `(\w+)` \|", _PAGE, re.MULTILINE)

    assert sorted(rows) == sorted(_EVE)
