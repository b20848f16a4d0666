"""Two layers of an overlay become one; what is seen through both stays the same."""

import os
import stat
from pathlib import Path

import pytest

from cas.fsops.effects import Effect, observed
from cas.fsops.kernel import mount, unmount
from cas.fsops.layer_merge import can_merge, merge_layer
from tests.support.trees import Tree, read_tree


class _StoppedError(Exception):
    pass


class Layers:
    """Three layers, and a look through all of them."""

    def __init__(self, place: Path) -> None:
        self.base, self.below, self.above = (place / name for name in ("base", "below", "above"))
        self._view, self.trash = place / "view", place / "trash"
        for path in (self.base, self.below, self.above, self._view):
            path.mkdir()

    def seen(self) -> tuple[Tree, dict[str, int]]:
        """What the overlay shows, with the times of its directories."""
        lower = ":".join(map(str, (self.above, self.below, self.base)))
        mount("overlay", self._view, "overlay", 0, f"lowerdir={lower}")
        try:
            times = {
                str(path.relative_to(self._view)): path.stat().st_mtime_ns
                for path in (self._view, *self._view.rglob("*"))
                if path.is_dir()
            }
            return read_tree(self._view), times
        finally:
            unmount(self._view, 0)

    def merge(self) -> None:
        """Join the upper two."""
        merge_layer(self.below, self.above, self.trash)


def _whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    """Every way in which one layer can hide or show what the next holds."""
    layers = Layers(tmp_path)
    for directory in ("kept", "replaced", "gone", "deep/er"):
        (layers.base / directory).mkdir(parents=True)
        (layers.base / directory / "base").write_text("base")
    below, above = layers.below, layers.above
    (below / "only").mkdir(mode=0o700)
    (below / "only" / "file").write_text("only below")
    (below / "deep" / "er").mkdir(parents=True)
    (below / "deep" / "er" / "below").write_text("below")
    (below / "hidden").write_text("by a file")
    (below / "kept").mkdir()
    (below / "kept" / "both").write_text("old")
    _whiteout(below / "gone")
    (below / "replaced").mkdir()
    os.setxattr(below / "replaced", "trusted.overlay.opaque", b"y")
    (below / "replaced" / "new").write_text("new")
    (below / "was-file").write_text("a file")
    (below / "cleared").mkdir()
    (below / "cleared" / "file").write_text("hidden")
    (below / "cleared" / "directory").mkdir()
    (below / "cleared" / "directory" / "file").write_text("hidden")
    (below / "twice").write_text("linked")
    os.link(below / "twice", below / "only" / "twice")
    (above / "deep" / "er").mkdir(parents=True)
    (above / "deep" / "er" / "above").write_text("above")
    (above / "hidden").write_text("seen")
    (above / "kept").mkdir()
    (above / "kept" / "both").write_text("now")
    (above / "replaced").mkdir()
    (above / "replaced" / "more").write_text("more")
    (above / "was-file").mkdir()
    (above / "gone").mkdir()
    (above / "gone" / "again").write_text("again")
    (above / "cleared").mkdir()
    (above / "cleared" / "directory").mkdir()
    os.setxattr(above / "cleared", "trusted.overlay.opaque", b"y")
    for path in sorted(above.rglob("*"), reverse=True):
        os.utime(path, (1_000_000, 1_000_000))
    os.utime(above, (1_000_000, 1_000_000))
    return layers


def test_merged_layers_show_the_same_and_the_lower_is_empty(layers: Layers) -> None:
    """Content, kinds, permissions and the times of directories."""
    before = layers.seen()
    layers.merge()
    assert list(layers.below.iterdir()) == []
    assert not layers.trash.exists()
    assert layers.seen() == before
    assert layers.above.stat().st_mtime == 1_000_000
    assert (layers.above / "twice").samefile(layers.above / "only" / "twice")


def test_merge_stopped_anywhere_shows_the_same_and_is_completed(layers: Layers) -> None:
    """Before each of its steps in turn."""
    before = layers.seen()
    left = 0

    def stop(_kind: Effect, _path: str) -> None:
        nonlocal left
        if left == 0:
            raise _StoppedError
        left -= 1

    for step in range(200):
        left = step
        try:
            with observed(stop):
                layers.merge()
        except _StoppedError:
            assert layers.seen()[0] == before[0]
        else:
            break
    else:
        pytest.fail("the merge never ended")
    assert step > 5
    assert list(layers.below.iterdir()) == []
    assert layers.seen() == before


def test_layer_that_points_to_other_names_cannot_be_merged(layers: Layers) -> None:
    """What a redirected directory shows would be taken for hidden."""
    assert can_merge(layers.above)
    os.setxattr(layers.above / "deep" / "er", "trusted.overlay.redirect", b"/elsewhere")
    assert not can_merge(layers.above)
