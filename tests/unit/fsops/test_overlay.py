"""The three ways to mount an overlay give the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cas.errors import LimitExceededError, StorageError
from cas.fsops.mounts import find_mount, unmount
from cas.fsops.overlay import (
    MAX_LAYERS,
    Overlay,
    mount_by_data,
    mount_by_layer,
    mount_overlay,
    mount_relative,
)
from tests.unit.fsops.conftest import entries

Way = Callable[[Overlay, Path], None]


def make_overlay(base: Path, count: int) -> Overlay:
    """Make layers and describe them."""
    lower = [base / str(number) / "fs" for number in range(count, 0, -1)]
    for layer in lower:
        layer.mkdir(parents=True)
        (layer / f"only-{layer.parent.name}").touch()
        (layer / "top").write_text(layer.parent.name)
    upper, work = base / "a" / "fs", base / "a" / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    return Overlay(tuple(map(str, lower)), str(upper), str(work), ("index=off",), 0)


@pytest.mark.parametrize(
    ("way", "count"),
    [
        (mount_by_data, 1),
        (mount_by_data, 20),
        *((way, count) for way in (mount_by_layer, mount_relative) for count in (1, 127, 500)),
        *((mount_overlay, count) for count in (1, 20, 127, 500)),
    ],
)
def test_every_way_and_depth_shows_the_same_tree(tmp_path: Path, way: Way, count: int) -> None:
    """Order of layers, their number, and where writing goes."""
    overlay = make_overlay(tmp_path / "snapshots", count)
    target = tmp_path / "target"
    target.mkdir()
    here = Path.cwd()
    way(overlay, target)
    assert Path.cwd() == here
    assert entries(target) == sorted([*(f"only-{n}" for n in range(1, count + 1)), "top"])
    assert (target / "top").read_text() == str(count)
    (target / "new").touch()
    assert entries(tmp_path / "snapshots" / "a" / "fs") == ["new"]
    found = find_mount(target)
    assert found is not None
    assert (found.source, found.option("upperdir")) == ("overlay", overlay.upper)
    unmount(target)


def test_data_longer_than_a_page_is_never_given_to_the_kernel(tmp_path: Path) -> None:
    """It would be cut in the middle of a path, which might exist."""
    overlay = make_overlay(tmp_path / "snapshots", 127)
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(OSError, match="127 layers need"):
        mount_by_data(overlay, target)
    assert find_mount(target) is None


def test_parse_takes_options_in_any_order() -> None:
    """containerd 1.x and 2.x write them differently."""
    options = ["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/b:/a"]
    first = Overlay.parse(options, 0)
    assert first == Overlay.parse(["workdir=/w", "upperdir=/u", "lowerdir=/b:/a", "index=off"], 0)
    assert first == Overlay(("/b", "/a"), "/u", "/w", ("index=off",), 0)
    assert first.directories() == ("/b", "/a", "/u", "/w")


def test_parse_keeps_colons_within_names() -> None:
    """The snapshotter does not escape, so only an absolute path begins a layer."""
    assert Overlay.parse(["lowerdir=/a:b/2:/a:b/1"], 0).lower == ("/a:b/2", "/a:b/1")


def test_parse_without_layers_or_with_too_many_is_refused() -> None:
    """Neither is a mount."""
    with pytest.raises(StorageError):
        Overlay.parse(["upperdir=/u"], 0)
    with pytest.raises(StorageError):
        Overlay.parse(["lowerdir="], 0)
    with pytest.raises(LimitExceededError):
        Overlay.parse(["lowerdir=" + ":/a" * (MAX_LAYERS + 1)], 0)


def test_data_escapes_what_separates() -> None:
    """A comma, a colon or a backslash in a name stays part of the name."""
    overlay = Overlay(("/a:b", "/c,d"), "/e\\f", "/w", ("index=off",), 0)
    assert overlay.data() == "lowerdir=/a\\:b:/c\\,d,upperdir=/e\\\\f,workdir=/w,index=off"
