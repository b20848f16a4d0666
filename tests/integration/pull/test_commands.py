"""Pulling from the command line."""

import json
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from cas.app import Case
from cas.errors import VaultNotEncryptedError
from cas.model.digest import Digest
from cas.model.progress import NO_PROGRESS
from cas.model.transfer_name import TransferName
from cas.pull.by_hand import download_unverified, verify_downloads
from cas.pull.sources import file_uuid
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import Cas, write_configuration
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import resource
from tests.support.images import layered_image
from tests.support.volumes import volume_name

DATA = b"a disk of some kind"
DIGEST = Digest.of(DATA)


@pytest.fixture
def cas(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cas:
    return Cas(case.settings, tmp_path, capsys)


def test_image_pull_prints_the_name(cas: Cas, case: Case, registry: HostileRegistry) -> None:
    """Or, as JSON, what came."""
    image = layered_image()
    reference = registry.publish(image)

    first = cas("image", "pull", f"docker://{reference}")
    second = cas("--json", "image", "pull", reference)

    assert (first.status, first.out) == (0, f"{reference}\n"), first
    told = json.loads(second.out)
    assert (told["name"], told["digest"], told["downloaded"]) == (reference, image.digest, 0)
    assert left_by(case) == NOTHING


def test_image_pull_shows_each_blob_and_the_total(cas: Cas, registry: HostileRegistry) -> None:
    """As lines where there is no terminal for bars."""
    image = layered_image()
    told = cas("--progress", "plain", "image", "pull", registry.publish(image)).err

    for layer in image.layers:
        for action in ("download", "verify"):
            assert f"{action} {layer.digest}: finish {len(layer.blob)}" in told
    total = sum(len(layer.blob) for layer in image.layers) + len(image.config)
    assert f"finish {total} of {total} B" in told


@pytest.mark.parametrize("columns", [120, 0])
def test_image_pull_on_a_terminal_shows_speed_and_time_left(
    columns: int, case: Case, registry: HostileRegistry, tmp_path: Path
) -> None:
    """A bar for each blob, and one for all; also on a serial line, which knows no width."""
    image = layered_image()
    reference = registry.publish(image)
    config = write_configuration(tmp_path, case.settings)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (25, columns))
    command = [sys.executable, "-m", "cas", "--config", str(config), "image", "pull", reference]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        shown = "".join(read_terminal(ours))
    os.close(ours)

    assert process.returncode == 0, shown
    for name in (f"pull {reference[:19]}", f"download {image.layers[0].digest[:19]}"):
        bar = re.search(rf"{re.escape(name)}:.*\| .*/.* \[(.*)<(.*), (.*)B/s\]", shown)
        assert bar is not None, shown


def read_terminal(descriptor: int) -> Iterator[str]:
    """What is written to a terminal, until nobody has it open."""
    with suppress(OSError):
        while data := os.read(descriptor, 65536):
            yield data.decode(errors="replace")


def test_image_pull_that_fails_ends_with_the_status_of_its_family(
    cas: Cas, case: Case, registry: HostileRegistry
) -> None:
    """And without any words meant for us only."""
    result = cas("image", "pull", f"{registry.address}/absent:v1")

    result.assert_orderly(3)
    assert "[source-not-found]" in result.err


def test_volume_prepare_pulls_an_image_that_is_absent(
    cas: Cas, case: Case, registry: HostileRegistry
) -> None:
    """And does not ask the registry again when it is there."""
    reference = registry.publish(layered_image())
    names = [volume_name(), volume_name()]

    for name in names:
        result = cas("volume", "prepare", name, "--image", f"docker://{reference}")
        assert result.status == 0, result
    asked = [request for request in registry.requests if request.path.endswith("/v1")]

    assert len(asked) == 1
    for name in names:
        case.volumes.remove(name)


def test_download_stores_a_verified_file(cas: Cas, case: Case, registry: HostileRegistry) -> None:
    """As a pinned blob; the second time without a download."""
    url = registry.on("/disks/a.img", resource(DATA))

    for _ in range(2):
        result = cas("download", url, "--digest", DIGEST)
        assert (result.status, result.out) == (0, f"{DIGEST}\n"), result

    assert len([each for each in registry.asked("/disks/a.img") if each.method == "GET"]) == 1
    assert b"".join(case.blobs.read(DIGEST)) == DATA
    assert left_by(case) == NOTHING


def test_download_with_another_digest_stores_nothing(
    cas: Cas, case: Case, registry: HostileRegistry
) -> None:
    """After as many downloads as allowed."""
    url = registry.on("/disks/a.img", resource(b"something else"))

    result = cas("download", url, "--digest", DIGEST)

    result.assert_orderly(5)
    assert not case.blobs.exists(DIGEST)
    assert left_by(case) == NOTHING


def test_steps_by_hand_end_with_a_verified_file(
    cas: Cas, case: Case, registry: HostileRegistry
) -> None:
    """Download, verify, ingest: what volumemgr does."""
    url = registry.on("/disks/a.img", resource(DATA))
    name = TransferName(uuid4(), DIGEST)
    layout = case.settings.layout

    downloaded = cas("download", url, "--digest", DIGEST, "--uuid", name.image, "--unverified")
    verified = cas("verify", downloaded.out.strip())
    ingested = cas("blob", "ingest", "--move", layout.verified / DIGEST.hex)

    assert downloaded.out == f"{layout.download(name)}\n", downloaded
    assert verified.out == f"{layout.verified / DIGEST.hex}\n", verified
    assert ingested.out == f"{DIGEST}\n", ingested
    assert left_by(case) == NOTHING


def test_steps_by_hand_want_the_encryption_that_the_configuration_wants(
    case: Case, registry: HostileRegistry
) -> None:
    """The guard stands in front of them, too; nothing is written."""
    strict = replace(case.settings, require_encryption=True)
    url = registry.on("/disks/a.img", resource(DATA))
    with pytest.raises(VaultNotEncryptedError):
        download_unverified(strict, url, DIGEST, size=None, image=None, progress=NO_PROGRESS)
    name = TransferName(file_uuid(url), DIGEST)
    download = case.settings.layout.download(name)
    assert not download.exists()
    download.write_bytes(DATA)
    with pytest.raises(VaultNotEncryptedError):
        verify_downloads(strict, [str(name)])
    assert download.read_bytes() == DATA


def test_verify_of_a_wrong_file_removes_it(cas: Cas, case: Case, registry: HostileRegistry) -> None:
    """The status says that its content is not what it claims."""
    name = TransferName(uuid4(), Digest.of(b"claimed"))
    url = registry.on("/disks/a.img", resource(DATA))
    cas("download", url, "--digest", name.digest, "--uuid", name.image, "--unverified")

    cas("verify", name).assert_orderly(5)

    assert left_by(case) == NOTHING
    cas("verify", name).assert_orderly(3)
    cas("verify", "no-such-name").assert_orderly(2)
