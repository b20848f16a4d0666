"""Servers of others, run for a block on a port of the loopback."""

__all__ = ["free_port", "serving"]

import os
import random
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.waiting import wait_for

_PORTS = range(10_000, 32_000)
_draw = random.SystemRandom()  # tests with one seed run beside each other
_PATIENCE_SECONDS = 100.0  # Azurite, on a machine that is busy


def free_port() -> int:
    """A port that nobody has at this moment.

    Drawn from those that Linux gives to nobody who names none: otherwise any connection of another
    test could take it before its server does.
    """
    while True:
        port = _draw.choice(_PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the block ends; the block begins when it answers on ``port``."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    try:
        wait_for(lambda: _answers(process, port, log), _PATIENCE_SECONDS)
        yield
    finally:
        process.terminate()
        process.wait(_PATIENCE_SECONDS)


def _answers(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
