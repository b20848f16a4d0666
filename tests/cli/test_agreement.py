"""Others who look at the same containerd see what ``cas`` reports."""

import json
import subprocess
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cas.model.settings import Settings
from tests.cli.conftest import RunCas
from tests.support.images import BuiltImage, build_index, busybox_image, layered_image


def _run(*command: object) -> bytes:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout


class Ctr:
    """containerd's own client on the containerd of a test."""

    def __init__(self, settings: Settings) -> None:
        self._command = "ctr", "--address", settings.socket, "--namespace", settings.namespace

    def __call__(self, *arguments: object) -> bytes:
        return _run(*self._command, *arguments)

    def rows(self, *arguments: object) -> dict[str, list[str]]:
        """The fields of a table without its head, by the first of them."""
        lines = [line.split() for line in self(*arguments).decode().splitlines()[1:]]
        return {line[0]: line[1:] for line in lines}


@pytest.fixture
def ctr(settings: Settings) -> Ctr:
    return Ctr(settings)


@pytest.fixture
def image(cas: RunCas, tmp_path: Path) -> BuiltImage:
    """A runnable image in the store."""
    built = busybox_image()
    assert cas("image", "import", built.write_oci_tar(tmp_path / "image.tar")).status == 0
    return built


def _json(cas: RunCas, *arguments: object) -> Any:
    result = cas(*arguments, "--json")
    assert result.status == 0, result.err
    return json.loads(result.out)


def test_ctr_sees_the_same_blobs_with_the_same_bytes(
    cas: RunCas, ctr: Ctr, image: BuiltImage, tmp_path: Path
) -> None:
    """Digests and sizes of what came with an image and of what came alone are containerd's."""
    alone = tmp_path / "alone"
    alone.write_bytes(b"content of its own" * 1000)
    cas("blob", "ingest", alone)

    listed = {blob["digest"]: blob["size"] for blob in _json(cas, "blob", "ls")}

    assert set(ctr("content", "ls", "-q").decode().split()) == set(listed)
    assert {digest: len(ctr("content", "get", digest)) for digest in listed} == listed
    assert listed.keys() >= image.blobs.keys()


def test_ctr_sees_the_same_images(cas: RunCas, ctr: Ctr, image: BuiltImage, tmp_path: Path) -> None:
    """Names point to the same digests and types; containerd finds them complete."""
    index = build_index([busybox_image(), layered_image(1, platform="linux/s390x")])
    cas("image", "import", index.named("example.com/index:1").write_oci_tar(tmp_path / "index.tar"))
    cas("image", "tag", image.name, "example.com/tag:1")

    listed = {
        record["name"]: [record["media_type"], record["digest"]]
        for record in _json(cas, "image", "ls")
    }

    assert {name: row[:2] for name, row in ctr.rows("images", "ls").items()} == listed
    assert set(listed) == {image.name, "example.com/index:1", "example.com/tag:1"}
    checked = ctr.rows("images", "check").values()
    assert ["complete" in row for row in checked] == [True, True, True]


def test_ctr_sees_the_same_snapshots(cas: RunCas, ctr: Ctr, image: BuiltImage) -> None:
    """Layers stand as committed snapshots by chain ID, volumes as active ones on top of them."""
    name = f"{uuid.uuid4()}#0"
    cas("volume", "prepare", name, "--image", image.name)

    [inspected] = _json(cas, "image", "inspect", image.name)
    [volume] = _json(cas, "volume", "ls")
    usage = _json(cas, "volume", "usage", name)
    snapshots = ctr.rows("snapshots", "ls")

    chain = [layer["chain_id"] for layer in inspected["layers"]]
    assert inspected["unpacked"] is True
    assert snapshots == {
        chain[0]: ["Committed"],
        **{upper: [lower, "Committed"] for lower, upper in pairwise(chain)},
        volume["snapshot_key"]: [volume["chain_id"], "Active"],
    }
    own, inodes = ctr.rows("snapshots", "usage", "-b", name)[name]
    shared = [int(ctr.rows("snapshots", "usage", "-b", each)[each][0]) for each in chain]
    assert (usage["own_bytes"], usage["inodes"]) == (int(own), int(inodes))
    assert usage["shared_bytes"] == sum(shared)
    assert cas("volume", "rm", name).status == 0


def test_cas_sees_what_ctr_did(cas: RunCas, ctr: Ctr, image: BuiltImage, tmp_path: Path) -> None:
    """What another client imports, tags and removes is listed as if it were ours."""
    other = layered_image(2).named("example.com/other:1")
    ctr("images", "import", "--no-unpack", other.write_oci_tar(tmp_path / "other.tar"))
    ctr("images", "tag", image.name, "example.com/tag:2")
    ctr("images", "rm", image.name)

    listed = {record["name"]: record["digest"] for record in _json(cas, "image", "ls")}

    assert listed == {other.name: other.digest, "example.com/tag:2": image.digest}
    assert cas("blob", "missing", *image.blobs, *other.blobs).out == ""
    assert cas("check").status == 0


def test_skopeo_sees_the_same_image_in_an_export(
    cas: RunCas, image: BuiltImage, tmp_path: Path
) -> None:
    """Digest, layers, sizes and config are those that ``cas image inspect`` tells."""
    archive = tmp_path / "exported.tar"
    assert cas("image", "export", image.name, "-o", archive).status == 0
    [inspected] = _json(cas, "image", "inspect", image.name)

    shown = json.loads(_run("skopeo", "inspect", f"oci-archive:{archive}"))
    manifest = json.loads(_run("skopeo", "inspect", "--raw", f"oci-archive:{archive}"))
    config = json.loads(_run("skopeo", "inspect", "--config", f"oci-archive:{archive}"))

    assert (shown["Digest"], config) == (inspected["digest"], inspected["config"])
    assert shown["Layers"] == [layer["digest"] for layer in inspected["layers"]]
    assert [
        (layer["mediaType"], layer["digest"], layer["size"]) for layer in manifest["layers"]
    ] == [(layer["media_type"], layer["digest"], layer["size"]) for layer in inspected["layers"]]
