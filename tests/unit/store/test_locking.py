"""Locks between threads and processes."""

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cas.errors import InterruptedOperationError, LockTimeoutError
from cas.model.cancellation import Cancellation
from cas.model.digest import ChainID, Digest
from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.store.locking import Locks

DIGEST = Digest.of(b"")
NAME = VolumeName.parse("7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0")

Taker = Callable[[Locks, float | None], AbstractContextManager[object]]

KINDS: dict[str, Taker] = {
    "blob": lambda locks, timeout: locks.blob(DIGEST, timeout_seconds=timeout),
    "chain": lambda locks, timeout: locks.chain(ChainID(DIGEST.hex), timeout_seconds=timeout),
    "volume": lambda locks, timeout: locks.volume(NAME, timeout_seconds=timeout),
    "image": lambda locks, timeout: locks.image("a:b", timeout_seconds=timeout),
    "store": lambda locks, timeout: locks.store(shared=False, timeout_seconds=timeout),
}


@pytest.fixture
def locks(tmp_path: Path) -> Locks:
    return Locks(Layout(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_lock_excludes_a_second_holder_and_comes_back(locks: Locks, kind: str) -> None:
    """Also within one thread: locks are not re-entrant."""
    take = KINDS[kind]
    with take(locks, None), pytest.raises(LockTimeoutError), take(locks, 0):
        pass
    with take(locks, 0):
        pass


def test_locks_of_different_kinds_go_together(locks: Locks) -> None:
    """A thread may hold one of each kind, in their order."""
    with (
        locks.store(),
        locks.image("x"),
        locks.volume(NAME),
        locks.chain(ChainID(DIGEST.hex)),
        locks.blob(DIGEST),
        locks.ledger(),
    ):
        pass


def test_store_lock_is_shared_by_work(locks: Locks) -> None:
    """Work goes on at once; being alone waits for all of it."""
    alone = locks.store(shared=False, timeout_seconds=0)
    with locks.store(), locks.store(), pytest.raises(LockTimeoutError), alone:
        pass
    together = locks.store(timeout_seconds=0)
    with locks.store(shared=False), pytest.raises(LockTimeoutError), together:
        pass


@pytest.mark.parametrize("kind", ["blob", "chain"])
def test_lock_waited_for_is_given_up_on_cancellation(locks: Locks, kind: str) -> None:
    """Who waits for somebody else's ingest or unpack can be stopped."""
    cancel = Cancellation()
    timer = threading.Timer(0.05, cancel.set)

    def take() -> AbstractContextManager[object]:
        if kind == "blob":
            return locks.blob(DIGEST, cancel=cancel)
        return locks.chain(ChainID(DIGEST.hex), cancel=cancel)

    with KINDS[kind](locks, None):
        timer.start()
        with pytest.raises(InterruptedOperationError), take():
            pass
    timer.join()


HOLDER = """
import sys
from pathlib import Path
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.store.locking import Locks
with Locks(Layout(Path(sys.argv[1]))).blob(Digest.of(b"")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_lock_of_a_killed_process_is_free(locks: Locks, tmp_path: Path) -> None:
    """The kernel gives back what a killed holder had."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockTimeoutError, match=str(process.pid)):
            locks.blob(DIGEST, timeout_seconds=0).__enter__()
        process.kill()
    with locks.blob(DIGEST, timeout_seconds=10):
        pass


def test_lock_files_stay_bounded(locks: Locks, tmp_path: Path) -> None:
    """However many objects are locked, there are at most 256 files per kind."""
    for number in range(600):
        with locks.blob(Digest.of(str(number).encode())):
            pass
    assert len(list(Layout(tmp_path).locks.iterdir())) <= 256
