"""Secrets are locked, wiped, and copied nowhere by accident."""

import copy
import ctypes
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cas.errors import DeniedError, SizeMismatchError
from cas.fsops.secrets import Secret, lock_process_memory

ROOT = Path(__file__).parents[3]


def _mapping_of(secret: Secret) -> dict[str, str]:
    """What the kernel says of the memory that the secret lies in."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(secret.view))
    found: dict[str, str] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split(" ")[0] and not name[0].isupper():
            start, _, end = name.split(" ")[0].partition("-")
            inside = int(start, 16) <= address < int(end, 16)
        elif inside:
            found[name] = value.strip()
    return found


def test_secret_lies_in_locked_memory_that_is_not_dumped() -> None:
    """Locked, left out of core dumps, zeroed in children."""
    with Secret(32) as secret:
        mapping = _mapping_of(secret)
    assert mapping["Locked"] != "0 kB"
    assert {"lo", "dd", "wf"} <= set(mapping["VmFlags"].split())


def test_secret_after_its_block_is_zero_for_whoever_kept_a_view() -> None:
    """Closing wipes first; a view that is still held sees nothing."""
    with Secret.random(32) as secret:
        view = secret.view
        assert bytes(view) != bytes(32)
    assert bytes(view) == bytes(32)
    secret.close()
    with pytest.raises(ValueError, match="wiped"):
        _ = secret.view


def test_secret_is_wiped_after_a_failure() -> None:
    """An error in the block changes nothing about that."""
    views: list[memoryview] = []

    def fail() -> None:
        with Secret.random(32) as secret:
            views.append(secret.view)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert bytes(views[0]) == bytes(32)


def test_random_secrets_differ() -> None:
    """Each has bytes of its own."""
    with Secret.random(32) as one, Secret.random(32) as other:
        assert bytes(one.view) != bytes(other.view)
        assert one.size == len(one.view) == 32


def test_secret_tells_nobody_what_it_holds() -> None:
    """Neither in messages nor by pickle or copy."""
    with Secret(4) as secret:
        secret.view[:] = b"text"
        assert "text" not in f"{secret} {secret!r}"
        for spread in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                spread(secret)


def test_child_of_a_fork_sees_zeros() -> None:
    """What is forked takes no key along."""
    with Secret.random(32) as secret:
        child = os.fork()
        if child == 0:
            os._exit(0 if bytes(secret.view) == bytes(32) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert bytes(secret.view) != bytes(32)


@pytest.mark.parametrize(("length", "told"), [(0, "0 bytes"), (31, "31 bytes"), (33, "more bytes")])
def test_secret_of_another_length_is_refused(length: int, told: str) -> None:
    """Too short and too long alike, whoever wrote a line end included."""
    reader, writer = os.pipe()
    os.write(writer, bytes(length))
    os.close(writer)
    try:
        with pytest.raises(SizeMismatchError, match=told):
            Secret.read_from(reader, 32, what="pipe")
    finally:
        os.close(reader)


def test_secret_is_read_from_a_pipe_that_gives_it_in_pieces() -> None:
    """Short reads are no end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for number in range(32):
            os.write(writer, bytes([number]))
        os._exit(0)
    os.close(writer)
    with Secret.read_from(reader, 32, what="pipe") as secret:
        assert bytes(secret.view) == bytes(range(32))
    os.close(reader)
    os.waitpid(child, 0)


def test_process_that_locks_its_memory_is_neither_swapped_nor_dumped() -> None:
    """All that it has, and no core file however it ends."""
    code = (
        "import resource; from pathlib import Path\n"
        f"from cas.fsops.secrets import {lock_process_memory.__name__}\n"
        "lock_process_memory(); lock_process_memory()\n"
        "status = Path('/proc/self/status').read_text()\n"
        "locked = int(status.split('VmLck:')[1].split()[0])\n"
        "print(locked > 1000, resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True 0"


def test_memory_that_may_not_be_locked_holds_no_secret() -> None:
    """Without the right to lock there is no secret at all."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        os.setresuid(64001, 64001, 64001)
        try:
            Secret(32)
        except DeniedError:
            os._exit(9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DeniedError.exit_code
