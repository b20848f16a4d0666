"""A container and a machine's disk, each from an archive to a volume, changed and changed back."""

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import RunCas
from tests.support.disks import DISK_LAYER, change_disk, content_of, disk_layout, qemu_image
from tests.support.images import layered_image
from tests.support.trees import read_tree

_IMAGE = "example.com/life:1"


@dataclass(frozen=True)
class Kind:
    """What a volume of a kind is made from, how it is changed, and all that is in it."""

    write_archive: Callable[[Path], Path]
    source: tuple[str, ...]
    change: Callable[[Path, int], object]
    content: Callable[[Path, Path], object]


def _container_archive(directory: Path) -> Path:
    return layered_image(2).write_oci_tar(directory / "image.tar")


def _change_container(root: Path, step: int) -> None:
    (root / "data").write_bytes(bytes([step]) * 100_000)
    (root / f"made-{step}").mkdir()
    for name in ("top", f"made-{step - 1}"):  # of the image, and of the step before
        path = root / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def _disk_archive(directory: Path) -> Path:
    data = qemu_image(directory / "disk", "qcow2", content=b"boot" * 100_000)
    layer = (f"{DISK_LAYER}+qcow2", data, {"org.lfedge.eci.role": "disk-root"})
    return disk_layout(directory / "layout", layer)


def _disk_content(path: Path, scratch: Path) -> str:
    return hashlib.sha256(content_of(path, "qcow2", scratch)).hexdigest()


KINDS = {
    "container": Kind(
        _container_archive,
        ("--image", _IMAGE, "--activate"),
        _change_container,
        lambda root, _: read_tree(root),
    ),
    "disk": Kind(
        _disk_archive,
        ("--disk", _IMAGE, "--size", "6MiB"),
        lambda path, step: change_disk(path, "qcow2", step),
        _disk_content,
    ),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_volume_goes_from_archive_to_snapshot_to_change_to_rollback_to_removal(
    cas: RunCas, kind: Kind, tmp_path: Path
) -> None:
    """Every byte of it is compared at each step, and in the end nothing of it is left."""
    name, follower = (f"{uuid.UUID(int=42)}#{generation}" for generation in range(2))

    def done(*arguments: str) -> Any:
        result = cas(*arguments, "--json")
        assert result.status == 0, result.err
        return json.loads(result.out)

    def snapshot(verb: str, label: str, *options: str) -> Any:
        quiesced = ("--quiesced",) if verb != "ls" else ()
        return done("volume", "snapshot", verb, name, "--snapshot", label, *quiesced, *options)

    done("image", "import", str(kind.write_archive(tmp_path)), "--name", _IMAGE)
    place = Path(done("volume", "prepare", name, *kind.source)["rootfs"])
    contents = {"made": kind.content(place, tmp_path)}
    for step, label in enumerate(("first", "second"), 1):
        [taken] = snapshot("create", label)
        assert (taken["volume"], taken["snapshot"]) == (name, label)
        contents[label] = kind.content(place, tmp_path)
        kind.change(place, step)
    contents["last"] = kind.content(place, tmp_path)
    assert contents["made"] == contents["first"]
    assert len({str(each) for each in contents.values()}) == 3

    for label in ("second", "first", "second"):
        snapshot("rollback", label)
        assert kind.content(place, tmp_path) == contents[label]
    kind.change(place, 7)
    snapshot("rollback", "first", "--drop-later")
    assert kind.content(place, tmp_path) == contents["first"]
    assert [row["snapshot"] for row in done("volume", "snapshot", "ls")] == ["first"]
    snapshot("rm", "first")
    assert kind.content(place, tmp_path) == contents["first"]
    assert done("volume", "snapshot", "ls") == []
    assert done("check")["findings"] == []

    place = Path(done("volume", "prepare", follower, *kind.source, "--replace")["rootfs"])
    assert kind.content(place, tmp_path) == contents["made"]
    assert [row["name"] for row in done("volume", "ls")] == [follower]
    done("volume", "rm", follower)
    assert done("volume", "ls") == []
    left = [path for path in place.parents[1].rglob("*") if str(uuid.UUID(int=42)) in path.name]
    assert left == []
