"""Ctrl-C and SIGTERM: the documented status, and nothing half done."""

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.settings import Settings
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import Compression, build_image
from tests.support.layers import file

CHUNK = os.urandom(1024 * 1024)


def _start(settings: Settings, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cas", *map(str, arguments)],
        env={
            "PYTHONPATH": ":".join(sys.path),
            "PATH": os.environ["PATH"],
            "CAS_PERSIST": str(settings.persist),
            "CAS_ADDRESS": str(settings.socket),
            "CAS_NAMESPACE": settings.namespace,
            "CAS_SERVICE": settings.service,
            "CAS_SERVICE_ADDRESS": str(settings.service_socket),
            "CAS_CONFIG": str(_config(settings)),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _config(settings: Settings) -> Path:
    path = settings.layout.run / "signals.toml"
    owners = "".join(f'{role} = "{name}"\n' for role, name in settings.owners.items())
    path.write_text(f"[owners]\n{owners}")
    return path


def _assert_nothing_is_left(settings: Settings) -> None:
    with Case.open(settings) as case:
        assert list(case.check.run()) == []
        assert list(case.backing.content.iter_ingests()) == []
        assert list(case.backing.leases.iter_leases()) == []
        assert list(case.volumes.iter_volumes()) == []
    stage = settings.layout.stage
    assert not stage.exists() or list(stage.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_ingest_of_stdin_leaves_nothing(
    number: signal.Signals, reached: Settings
) -> None:
    """An ingest that waits for more bytes is undone and says so."""
    process = _start(reached, "blob", "ingest", "-")
    assert process.stdin is not None
    for _ in range(8):
        process.stdin.write(CHUNK)
    process.stdin.flush()

    process.send_signal(number)
    _, stderr = process.communicate(timeout=WAIT_SECONDS)

    assert process.returncode == 130, stderr
    assert b"[interrupted]" in stderr
    assert b"Traceback" not in stderr
    _assert_nothing_is_left(reached)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_import_from_stdin_leaves_nothing(
    number: signal.Signals, reached: Settings, tmp_path: Path
) -> None:
    """An import that has half of an archive names no image."""
    image = build_image(
        [[file(f"data-{layer}", os.urandom(4 << 20))] for layer in range(3)],
        compression=Compression.NONE,
    )
    archive = image.write_oci_tar(tmp_path / "image.tar", documents_first=False).read_bytes()
    process = _start(reached, "image", "import", "-")
    assert process.stdin is not None
    process.stdin.write(archive[: len(archive) // 2])
    process.stdin.flush()

    process.send_signal(number)
    _, stderr = process.communicate(timeout=WAIT_SECONDS)

    assert process.returncode == 130, stderr
    assert b"Traceback" not in stderr
    with Case.open(reached) as case:
        assert not case.images.exists(image.name)
    _assert_nothing_is_left(reached)


def test_signal_to_a_list_of_commands_keeps_what_was_acknowledged(
    reached: Settings, tmp_path: Path
) -> None:
    """Digests that were printed before the signal are stored."""
    directory = tmp_path / str(uuid.uuid4())
    directory.mkdir()
    names = []
    for number in range(400):
        path = directory / str(number)
        path.write_bytes(os.urandom(2000))
        names.append(path)
    process = _start(reached, "blob", "ingest", *names)
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().decode().strip()]

    process.send_signal(signal.SIGINT)
    rest, stderr = process.communicate(timeout=WAIT_SECONDS)
    acknowledged += rest.decode().split()

    # The last where the command has ended and its interpreter has not; a shell shows it as 130.
    assert process.returncode in (0, 130, -signal.SIGINT), stderr
    assert b"Traceback" not in stderr
    with Case.open(reached) as case:
        stored = {str(blob.digest) for blob in case.blobs.iter_blobs()}
    assert set(acknowledged) <= stored
