"""A disk that fills up in the middle of a pull."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.store.space import Space
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import Cas
from tests.support.daemon import private_daemon, settings_for
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import Line, Request, answer, resource
from tests.support.images import build_image
from tests.support.layers import file
from tests.support.loopfs import LoopFileSystem
from tests.support.stores import names, random_bytes

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
_DISK = 256 * MIB
_ROOM = 8 * MIB
_QUICKLY = 12 * MIB


class _Ebbing(Line):
    """Sends more than there is room for, and then hardly anything: nobody has to be quick."""

    def send(self, data: bytes) -> None:
        if self.sent < _QUICKLY:
            super().send(data)
            return
        for place in range(len(data)):
            super().send(data[place : place + 1])
            self.released.wait(0.02)


@pytest.mark.parametrize("verified", [True, False], ids=["stored", "unverified"])
def test_file_of_unknown_size_takes_no_room_that_others_were_promised(
    loop_ext4: Callable[[int], LoopFileSystem],
    containerd_binary: str,
    registry: HostileRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verified: bool,
) -> None:
    """It ends with the status of a full disk, though that is not full, and goes on later."""
    disk = loop_ext4(_DISK)
    disk.path.chmod(0o755)
    settings = settings_for(disk.path, containerd_binary)
    settings = replace(settings, owners=Settings(persist=disk.path).owners)
    body = random_bytes(24 * MIB)
    sent = resource(body, length=-1, piece=256 * 1024)

    def slowly(request: Request, line: Line) -> None:
        sent(request, _Ebbing(line.socket, line.released))

    path = "/disk.img"
    url = registry.on(path, answer(405), slowly, slowly, sent)
    command = ["download", url, "--digest", Digest.of(body)]
    if not verified:
        command.append("--unverified")
        registry.on(path, slowly, sent)
    with private_daemon(settings), Case.open(settings) as case:
        cas = Cas(settings, tmp_path, capsys)
        space = Space(case.backing)
        with space.reserve(space.available() - _ROOM, "the work of others"):
            result = cas(*command)
        result.assert_orderly(6)
        assert "[no-space]" in result.err
        (partial,) = settings.layout.downloader.glob("*.partial")
        came = partial.stat().st_size

        assert cas(*command).status == 0

        assert MIB < came < _QUICKLY + MIB
        assert registry.asked(path)[-1].headers["range"] == f"bytes={came}-"
        assert names(settings.layout.reservations) == []
        assert case.blobs.exists(Digest.of(body)) == verified


def test_pull_on_a_disk_that_fills_up_ends_and_goes_on_when_there_is_room(
    loop_ext4: Callable[[int], LoopFileSystem],
    containerd_binary: str,
    registry: HostileRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the status of a full disk, and what came is kept."""
    disk = loop_ext4(_DISK)
    disk.path.chmod(0o755)
    settings = settings_for(disk.path, containerd_binary)
    settings = replace(settings, owners=Settings(persist=disk.path).owners)
    image = build_image([[file("data", random_bytes(24 * MIB))]])
    reference = registry.publish(image)
    layer = image.layers[0]
    sent = resource(layer.blob, etag=None, piece=64 * 1024)

    def fill_and_send(request: Request, line: Line) -> None:
        disk.leave(_ROOM)
        sent(request, line)

    path = registry.behave(layer.digest, fill_and_send, sent)
    with private_daemon(settings), Case.open(settings) as case:
        cas = Cas(settings, tmp_path, capsys)
        result = cas("image", "pull", reference)
        result.assert_orderly(6)
        assert "[no-space]" in result.err
        assert not case.images.exists(reference)
        came = sum(each.stat().st_size for each in settings.layout.downloader.glob("*.partial"))
        disk.make_room()

        assert cas("image", "pull", reference).status == 0

        first, *_, last = registry.asked(path)
        assert "range" not in first.headers
        assert came > MIB
        assert last.headers["range"] == f"bytes={came}-"
        assert left_by(case) == NOTHING
