"""Input that is broken or hostile: the documented error and status, no traceback, nothing left."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.labels import GC_ROOT
from cas.model.limits import Limits
from cas.model.settings import Settings
from tests.cli.conftest import Result, RunCas
from tests.support.bad_images import circular, corrupt, nested, with_manifest, with_root
from tests.support.images import BuiltImage, build_image, build_index, layered_image, write_tar
from tests.support.layers import BuiltLayer, build_layer, file, hard_link
from tests.support.volumes import volume_name

Make = Callable[[Path], Path]


def _image() -> BuiltImage:
    return layered_image(2)


def _tar(make: Callable[[], BuiltImage]) -> Make:
    return lambda directory: make().write_oci_tar(directory / "image.tar")


def _truncated(directory: Path) -> Path:
    path = _image().write_oci_tar(directory / "image.tar")
    path.write_bytes(path.read_bytes()[:5000])
    return path


def _text(directory: Path) -> Path:
    path = directory / "image.tar"
    path.write_text("this is no archive\n" * 100)
    return path


def _lying() -> BuiltImage:
    return build_image([[file("a", b"a")]], diff_ids=[f"sha256:{'0' * 64}"])


def _not_compressed() -> BuiltImage:
    return build_image([replace(_layer(), blob=b"\x1f\x8b no gzip")])


def _layer() -> BuiltLayer:
    return build_layer([file("a", b"a")])


BAD_ARCHIVES: dict[str, tuple[Make, int, str]] = {
    "truncated": (_truncated, 5, "malformed-archive"),
    "not an archive": (_text, 5, "malformed-archive"),
    "archive of something else": (
        lambda directory: write_tar(directory / "a.tar", {"file": b"content"}),
        5,
        "malformed-archive",
    ),
    "blob absent": (
        _tar(lambda: _image().without(_image().layers[0].digest)),
        3,
        "content-missing",
    ),
    "blob different": (
        _tar(lambda: corrupt(_image(), _image().layers[0].digest)),
        5,
        "digest-mismatch",
    ),
    "manifest too large": (
        _tar(lambda: with_root(_image(), b" " * 5_000_000)),
        5,
        "limit-exceeded",
    ),
    "manifest is not JSON": (_tar(lambda: with_root(_image(), b"text")), 5, "malformed-document"),
    "manifest with wrong types": (
        _tar(lambda: with_manifest(_image(), lambda document: document.update(layers=1))),
        5,
        "malformed-document",
    ),
    "unknown media type": (
        _tar(lambda: replace(_image(), root={**_image().root, "mediaType": "text/plain"})),
        5,
        "malformed-document",
    ),
    "circle": (_tar(lambda: circular(_image())), 5, "digest-mismatch"),
    "nested too deeply": (_tar(lambda: nested(_image(), 6)), 5, "limit-exceeded"),
}


def _assert_nothing_is_left(settings: Settings) -> None:
    with Case.open(settings) as case:
        case.collect_garbage()
        assert list(case.check.run(read_data=True)) == []
        assert list(case.images.iter_images()) == []
        assert list(case.volumes.iter_volumes()) == []
        assert list(case.backing.snapshots.iter_snapshots()) == []
        assert list(case.backing.content.iter_ingests()) == []
        assert list(case.backing.leases.iter_leases()) == []
        assert all(GC_ROOT in blob.labels for blob in case.blobs.iter_blobs())  # the sentinel


def _assert_refused(result: Result, status: int, reference: str) -> None:
    assert (result.status, result.out) == (status, "")
    assert json.loads(result.err)["error"]["reference"] == reference


@pytest.mark.parametrize(("make", "status", "reference"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archive_ends_with_its_documented_status(
    make: Make, status: int, reference: str, cas: RunCas, settings: Settings, tmp_path: Path
) -> None:
    """Whatever is wrong with an archive has a reference and a status, and leaves nothing."""
    result = cas("--json", "image", "import", make(tmp_path), "--name", "example.com/bad:1")

    _assert_refused(result, status, reference)
    _assert_nothing_is_left(settings)


def test_image_of_another_platform_ends_with_its_documented_status(
    cas: RunCas, settings: Settings, tmp_path: Path
) -> None:
    """A platform that the image has not got is not found, and what it has is named."""
    index = build_index([layered_image(1, platform="linux/s390x")]).named("example.com/other:1")
    archive = index.write_oci_tar(tmp_path / "image.tar")
    assert cas("image", "import", archive).status == 0

    result = cas("--json", "volume", "prepare", _name(), "--image", index.name)

    _assert_refused(result, 3, "platform-not-found")
    assert "linux/s390x" in result.err
    assert cas("image", "rm", index.name).status == 0
    _assert_nothing_is_left(settings)


BAD_LAYERS: dict[str, tuple[Callable[[], BuiltImage], str]] = {
    "diff ID lies": (_lying, "diff-id-mismatch"),
    "hard link to the outside": (
        lambda: build_image([[hard_link("passwd", "../../../../../../../etc/passwd")]]),
        "layer-unusable",
    ),
    "not what its type says": (_not_compressed, "layer-unusable"),
    "bomb": (lambda: build_image([[file("zeros", bytes(64 << 20))]]), "limit-exceeded"),
}


@pytest.mark.parametrize(
    "limits", [Limits(layer_expansion=10, layer_expansion_floor_bytes=1_000_000)], ids=["strict"]
)
@pytest.mark.parametrize(("make", "reference"), BAD_LAYERS.values(), ids=BAD_LAYERS)
def test_bad_layer_ends_with_its_documented_status(
    make: Callable[[], BuiltImage],
    reference: str,
    cas: RunCas,
    settings: Settings,
    tmp_path: Path,
) -> None:
    """A layer that lies, reaches out or explodes makes no volume and leaves nothing."""
    image = make()
    assert cas("image", "import", image.write_oci_tar(tmp_path / "image.tar")).status == 0

    result = cas("--json", "volume", "prepare", _name(), "--image", image.name)

    _assert_refused(result, 5, reference)
    assert cas("image", "rm", image.name).status == 0
    _assert_nothing_is_left(settings)


def _name() -> str:
    return str(volume_name())
