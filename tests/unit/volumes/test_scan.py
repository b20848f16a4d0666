"""Telling apart what lies in the volumes directory."""

from pathlib import Path

import pytest

from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.volumes.scan import LeftoverKind, iter_foreign, iter_leftovers, iter_names

_FIRST = VolumeName.parse("0d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0")
_SECOND = VolumeName.parse("7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#12")
_THIRD = VolumeName.parse("8d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#3")
_LINK = VolumeName.parse("9d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#4")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.volumes.mkdir(parents=True)
    return made


def test_iter_names_gives_directories_with_volume_names_sorted(layout: Layout) -> None:
    """Only a directory of the right name is a container volume."""
    layout.volume(_SECOND).mkdir()
    layout.volume(_FIRST).mkdir()
    (layout.volumes / "lost+found").mkdir()
    layout.volume_preparing(_FIRST).mkdir()
    (layout.volumes / str(_FIRST).upper()).mkdir()
    assert list(iter_names(layout)) == [_FIRST, _SECOND]


def test_iter_names_without_directory_gives_nothing(tmp_path: Path) -> None:
    """A store without volumes is no error."""
    assert list(iter_names(Layout(tmp_path))) == []


def test_iter_names_ignores_symbolic_links(layout: Layout, tmp_path: Path) -> None:
    """A link could lead out of the volumes directory."""
    layout.volume(_FIRST).symlink_to(tmp_path)
    assert list(iter_names(layout)) == []


def test_iter_leftovers_recognises_both_kinds(layout: Layout) -> None:
    """What an interrupted operation left is found by its exact name only."""
    layout.volume_preparing(_FIRST).mkdir()
    layout.volume_removing(_SECOND).mkdir()
    (layout.volumes / f".{_FIRST}.other").mkdir()
    (layout.volumes / f"{_FIRST}.removing").mkdir()
    found = [(each.kind, each.name, each.path) for each in iter_leftovers(layout)]
    assert found == [
        (LeftoverKind.PREPARING, _FIRST, layout.volume_preparing(_FIRST)),
        (LeftoverKind.REMOVING, _SECOND, layout.volume_removing(_SECOND)),
    ]


def test_iter_foreign_explains_what_it_finds(layout: Layout) -> None:
    """Disks with the suffix of older releases are recognised, nothing of ours is foreign."""
    layout.volume(_FIRST).mkdir()
    layout.volume_removing(_FIRST).mkdir()
    (layout.volumes / ".0123456789abcdef.cas-temporary").mkdir()
    (layout.volumes / f"{_SECOND}.qcow2").touch()
    (layout.volumes / f"{_SECOND}.tar").touch()
    layout.disk(_SECOND, clear=False).file.touch()
    layout.disk_records(clear=False).mkdir()
    layout.volume(_LINK).symlink_to("elsewhere")
    layout.disk(_THIRD, clear=True).file.mkdir(parents=True)
    found = {each.path.name: each.reason for each in iter_foreign(layout)}
    assert found == {
        str(_LINK): "neither a directory nor a regular file, so no volume",
        str(_THIRD): "a directory, and container volumes are never in clear",
        f"{_SECOND}.qcow2": f"volume {_SECOND} as older releases name it, format qcow2",
        f"{_SECOND}.tar": "not the name of a volume",
    }
