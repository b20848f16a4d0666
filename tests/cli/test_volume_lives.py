"""Whole lives of volumes on the command line, their content compared at each step."""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.model.digest import Digest
from cas.model.settings import ServiceUse, Settings
from cas.model.volume_name import VolumeName
from tests.cli.conftest import RunCas
from tests.support.disks import (
    DISK_LAYER,
    MIB,
    change_disk,
    content_of,
    disk_layout,
    qemu_image,
)
from tests.support.images import build_image
from tests.support.layers import directory, file, symlink, whiteout
from tests.support.machines import lose_state, machine_starting_before
from tests.support.trees import merged_tree, read_tree

_LAYERS = (
    [directory("etc"), file("etc/a", os.urandom(70_000)), file("gone", b"x"), symlink("l", "gone")],
    [file("etc/b", b"b"), whiteout("gone")],
)


def _done(cas: RunCas, *arguments: object) -> str:
    result = cas(*arguments)
    assert result.status == 0, result
    return result.out


def test_container_goes_from_an_archive_through_snapshots_to_its_removal(
    cas: RunCas, tmp_path: Path
) -> None:
    """Files written, changed and removed are there, or not, as they were when it was frozen."""
    image = build_image(list(_LAYERS), name="example.com/life:1")
    name = f"{uuid.uuid4()}#0"
    _done(cas, "image", "import", image.write_oci_tar(tmp_path / "image.tar"))
    rootfs = Path(_done(cas, "volume", "prepare", name, "--image", image.name).strip())

    def seen(act: Callable[[], object] = lambda: None) -> object:
        """What is in the volume, mounted anew, and after ``act`` in it."""
        _done(cas, "volume", "activate", name)
        act()
        tree = read_tree(rootfs)
        _done(cas, "volume", "deactivate", name)
        return tree

    def write() -> None:
        (rootfs / "etc/a").write_bytes(os.urandom(100_000))
        (rootfs / "etc/b").unlink()
        (rootfs / "new").mkdir()
        (rootfs / "new/file").write_bytes(os.urandom(1000))

    def destroy() -> None:
        shutil.rmtree(rootfs / "etc")
        (rootfs / "l").unlink()
        (rootfs / "new/file").write_bytes(b"")

    assert seen() == merged_tree(_LAYERS)
    written = seen(write)
    _done(cas, "volume", "snapshot", "create", name, "--snapshot", "before")
    assert seen() == written
    assert seen(destroy) != written
    _done(cas, "volume", "snapshot", "rollback", name, "--snapshot", "before")
    assert seen() == written
    _done(cas, "volume", "snapshot", "rm", name, "--snapshot", "before")
    assert seen() == written
    _end(cas, name, rootfs.parent)


def test_disk_goes_from_an_archive_through_snapshots_to_its_removal(
    cas: RunCas, tmp_path: Path
) -> None:
    """Each byte of the disk is what it was when it was frozen."""
    content = os.urandom(MIB) + bytes(2 * MIB) + os.urandom(MIB)
    image = qemu_image(tmp_path / "image.qcow2", "qcow2", content=content)
    layer = (f"{DISK_LAYER}+qcow2", image, {"org.lfedge.eci.role": "disk-root"})
    layout, name = disk_layout(tmp_path / "layout", layer), f"{uuid.uuid4()}#0"
    _done(cas, "image", "import", layout, "--name", "example.com/vm:1")
    prepare = ("volume", "prepare", name, "--disk", "example.com/vm:1", "--size", "6MiB")
    disk = json.loads(_done(cas, *prepare, "--json"))["disk"]
    path = Path(disk["path"])
    assert (disk["format"], disk["blob_digest"]) == ("qcow2", str(Digest.of(image)))

    def seen() -> bytes:
        return content_of(path, "qcow2", tmp_path)

    assert seen() == content + bytes(2 * MIB)
    change_disk(path, "qcow2", 1)
    written = seen()
    _done(cas, "volume", "snapshot", "create", name, "--snapshot", "before")
    assert seen() == written == b"\1" * MIB + content[MIB:] + bytes(2 * MIB)
    change_disk(path, "qcow2", 2, size=5 * MIB)
    assert seen() == b"\2" * 5 * MIB + bytes(MIB)
    _done(cas, "volume", "snapshot", "rollback", name, "--snapshot", "before")
    assert seen() == written
    _done(cas, "volume", "snapshot", "rm", name, "--snapshot", "before")
    assert seen() == written
    _end(cas, name, path)


@pytest.mark.parametrize("reached", [ServiceUse.NEVER], indirect=True)
def test_json_error_of_a_rollback_names_the_disk_that_a_machine_keeps(
    cas: RunCas, reached: Settings
) -> None:
    """In the message, with the reason, and in the details."""
    names = [f"{uuid.uuid4()}#0" for _ in range(2)]
    for name in names:
        _done(cas, "volume", "prepare", name, "--blank", "--size", "1MiB", "--format", "qcow2")
    _done(cas, "volume", "snapshot", "create", *names, "--snapshot", "one")
    opened, failing = (reached.layout.disk(VolumeName.parse(name), clear=False) for name in names)
    lose_state(failing.history)
    rollback = ("volume", "snapshot", "rollback", *names, "--snapshot", "one", "--json")
    with machine_starting_before(failing.history, opened.file, "qcow2"):
        result = cas(*rollback)
    error = json.loads(result.err)["error"]
    assert error["reference"] == "volume-corrupt"
    assert f"volume {names[0]} stays rolled back to snapshot 'one'" in error["message"]
    assert error["details"]["given_up"] == names[0]


def _end(cas: RunCas, name: str, path: Path) -> None:
    """Remove a volume of a healthy store, and see that nothing is left of it."""
    assert json.loads(_done(cas, "check", "--read-data", "--json"))["findings"] == []
    _done(cas, "volume", "rm", name)
    assert not path.exists()
    assert json.loads(_done(cas, "df", "--json"))["volumes"] == []
    assert json.loads(_done(cas, "check", "--json"))["findings"] == []
