"""Paths of the layout."""

from pathlib import Path
from uuid import UUID

from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName

NAME = VolumeName(UUID("7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34"), 3)


def test_layout_of_the_default_persist_matches_the_contract() -> None:
    """The paths that others rely on are spelled here once more, by hand."""
    layout = Layout(Path("/persist"))

    assert layout.case == Path("/persist/vault/case")
    assert layout.volume(NAME) == Path(
        "/persist/vault/volumes/7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#3"
    )
    assert layout.clear_volumes == Path("/persist/clear/volumes")
    assert layout.containerd_socket == Path("/run/containerd-user/containerd.sock")
    assert layout.service_socket == Path("/run/cas/cas.sock")


def test_layout_of_another_persist_keeps_run_files_below_it() -> None:
    """A private store shares no socket and no lock with the system's."""
    layout = Layout(Path("/tmp/p"))

    assert layout.containerd_socket == Path("/tmp/p/run/containerd.sock")
    assert layout.service_socket == Path("/tmp/p/run/cas.sock")
    assert layout.lock("blob", "x").is_relative_to(layout.persist)


def test_temporary_volume_directories_do_not_parse_as_volumes() -> None:
    """A directory that is being built or removed can never be taken for a volume."""
    layout = Layout(Path("/persist"))

    assert layout.volume_preparing(NAME).name.startswith(".")
    assert layout.volume_removing(NAME).name.startswith(".")


def test_lock_files_of_many_objects_stay_few() -> None:
    """There are at most 256 lock files per kind."""
    layout = Layout(Path("/persist"))
    paths = {layout.lock("blob", str(Digest.of(str(number).encode()))) for number in range(5000)}

    assert len(paths) == 256


def test_directories_come_parents_first() -> None:
    """Each directory's parent is the persist directory or stands earlier in the list."""
    layout = Layout(Path("/persist"))
    seen = {layout.persist}
    for directory in layout.directories():
        assert directory.path.parent in seen
        seen.add(directory.path)


def test_directories_give_no_rights_to_others() -> None:
    """No directory has permission bits for others."""
    assert all(row.mode & 0o007 == 0 for row in Layout(Path("/persist")).directories())
