"""The fixtures that all integration tests stand on."""

import os
from collections.abc import Callable
from pathlib import Path

from cas.containerd.client import Containerd
from cas.model.settings import Settings
from tests.support.daemon import mounts_below
from tests.support.loopfs import LoopFileSystem


def test_settings_of_a_test_name_its_own_namespace(
    settings: Settings, containerd: Containerd
) -> None:
    """Nothing of another test is in sight."""
    assert containerd.namespace == settings.namespace
    assert list(containerd.content.iter_blobs()) == []


def test_power_cut_unsynced_file_is_lost(
    loop_ext4: Callable[[int], LoopFileSystem],
) -> None:
    """The simulated power cut loses what was not synced and keeps what was."""
    system = loop_ext4(32 * 1024 * 1024)
    kept = system.path / "kept"
    with kept.open("wb") as file:
        file.write(b"kept")
        file.flush()
        os.fsync(file.fileno())
    (system.path / "lost").write_bytes(b"lost")

    system.power_cut()
    system.remount()

    assert kept.read_bytes() == b"kept"
    assert not (system.path / "lost").exists()
    assert mounts_below(system.path.parent) == [system.path]
    assert isinstance(system.image, Path)
