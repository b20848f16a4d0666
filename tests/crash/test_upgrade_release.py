"""The tree of an old release, upgraded by the command while that is killed again and again."""

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cas.app import Case
from cas.cli.main import main
from cas.model.volume_name import VolumeName
from tests.support.daemon import persist_directory, private_daemon
from tests.support.killing import kill_at
from tests.support.old_device import OldDevice, mounted_tmpfs
from tests.support.old_release import OldRelease
from tests.support.service import service_configuration

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_KILLS = 50
_SHORT_RUN = 14
"""Changes that even a run makes that finds nothing to do."""
_STATUS_OF_A_WRONG_DOWNLOAD = 5


@pytest.fixture(params=["together", "apart"])
def release(request: pytest.FixtureRequest, containerd_binary: str) -> Iterator[OldRelease]:
    """The tree, with the vault on its file system or on another one."""
    with persist_directory() as persist, ExitStack() as stack:
        stack.enter_context(mounted_tmpfs(persist))
        (persist / "vault").mkdir()
        if request.param == "apart":
            stack.enter_context(mounted_tmpfs(persist / "vault"))
        yield OldRelease(OldDevice(persist), containerd_binary)


def _upgrade(config: Path) -> int:
    return main(["--config", str(config), "upgrade", "run", "-q"])


def _quietly(config: Path) -> None:
    """Run it in a child, whose output nobody reads."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    _upgrade(config)


def test_tree_of_an_old_release_survives_fifty_kills_of_the_command(
    release: OldRelease, crash_seed: int, containerd_binary: str, tmp_path: Path
) -> None:
    """Every volume has its new name, byte for byte and attribute for attribute; nothing is lost or
    left, the report accounts for every file, and the containers of the old store run."""
    source = random.Random(crash_seed)
    no_room_kept = {"limits.min_free_bytes": 0}
    config = service_configuration(tmp_path, release.device.settings, **no_room_kept)
    kills = 0
    while kills < _KILLS:
        often = source.random() < 0.7
        step = source.randrange(_SHORT_RUN if often else 60)
        kills += kill_at(step, partial(_quietly, config))
        release.assert_nothing_is_lost()
    assert _upgrade(config) == _STATUS_OF_A_WRONG_DOWNLOAD
    release.assert_done()
    settings = replace(release.device.settings, containerd_binary=containerd_binary)
    with private_daemon(settings), Case.open(settings) as case:
        case.recover()
        assert [image.name for image in case.images.iter_images()] == [release.container.image.name]
        name = VolumeName.parse(release.device.new(release.container.app).name)
        assert (case.volumes.activate(name).rootfs / "written").read_text() == "by the app"
        case.volumes.deactivate(name)
