"""SIGKILL of any process of a pull, at any stage: what was synced is not fetched again."""

import json
import os
import signal
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName, image_uuid
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import CasProcess, write_configuration
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import Line, resource
from tests.support.images import BuiltImage, build_image
from tests.support.layers import file
from tests.support.stores import own_blobs, random_bytes
from tests.support.waiting import wait_for

MIB = 1024 * 1024
SYNC_BYTES = MIB
CUTS = (5 * MIB, 3 * MIB)
"""Bytes that come before the first kill, and after it before the second."""


@pytest.fixture
def config(pull_settings: Settings, tmp_path: Path) -> Path:
    """The configuration of a command that syncs often."""
    path = write_configuration(tmp_path, pull_settings)
    with path.open("a") as text:
        text.write(f'[download]\nsync_bytes = {SYNC_BYTES}\nhosts_directory = "{tmp_path}/none"\n')
    return path


def image_of(size: int) -> BuiltImage:
    """An image of one layer that does not compress, and a small one."""
    return build_image([[file("data", random_bytes(size))], [file("small", b"x")]])


def agents_of(command: int) -> dict[str, int]:
    """Process ids of a command's agents by name."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        for name in ("downloader", "verifier"):
            if parent == command and f"cas.{name}".encode() in words:
                found[name] = int(process.name)
    return found


def synced_bytes(path: Path) -> int:
    """What the record beside a partial file says of it."""
    try:
        return int(json.loads(path.read_bytes())["record"]["synced"])
    except FileNotFoundError:
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["command", "downloader"])
def test_download_killed_goes_on_where_it_was_synced(
    victim: str, config: Path, pull_settings: Settings, registry: HostileRegistry
) -> None:
    """The server is asked for nothing that was on the disk for certain; the image ends whole."""
    image = image_of(12 * MIB)
    reference = registry.publish(image)
    layer = image.layers[0]
    cuts = [resource(layer.blob, etag=None, cut_after=cut, then=Line.hold) for cut in CUTS]
    path = registry.behave(layer.digest, *cuts, resource(layer.blob, etag=None))
    name = TransferName(image_uuid(reference), Digest.parse(layer.digest))
    record = pull_settings.layout.download(name).with_name(f"{name}.progress")
    begun = [0]

    for number in range(len(CUTS)):
        with CasProcess(config, "image", "pull", reference) as process:
            wait_for(lambda: synced_bytes(record) > begun[-1])
            pid = process.pid if victim == "command" else agents_of(process.pid)[victim]
            os.kill(pid, signal.SIGKILL)
            process.result().assert_orderly(-signal.SIGKILL if victim == "command" else 8)
        wait_for(lambda: len(registry.asked(path)) == number + 1)  # noqa: B023
        begun.append(synced_bytes(record))
    with CasProcess(config, "image", "pull", reference) as process:
        assert process.result().status == 0

    starts = [
        int(request.headers.get("range", "bytes=0-")[len("bytes=") : -1])
        for request in registry.asked(path)
    ]
    assert starts == begun
    with Case.open(pull_settings) as case:
        case.recover()
        assert own_blobs(case.backing) == {Digest.parse(digest) for digest in image.blobs}
        assert left_by(case) == NOTHING


@pytest.mark.slow
def test_pull_killed_at_calls_to_containerd_ends_whole(
    config: Path, pull_settings: Settings, registry: HostileRegistry
) -> None:
    """Between download, verification, ingest and name; a recovery in between takes nothing."""
    image = image_of(2 * MIB)
    reference = registry.publish(image)
    layer = image.layers[0]
    path = registry.blob(layer.digest)

    for calls in (12, 20, 28, 36):
        with CasProcess(config, "image", "pull", reference) as process:
            process.wait_for_calls(calls)
            process.kill()
            process.result()
        with Case.open(pull_settings) as case:
            case.leasing.reap()
    with CasProcess(config, "image", "pull", reference) as process:
        assert process.result().status == 0

    assert len(registry.asked(path)) <= 2
    with Case.open(pull_settings) as case:
        case.recover()
        assert own_blobs(case.backing) == {Digest.parse(digest) for digest in image.blobs}
        assert left_by(case) == NOTHING
