"""Locks across threads and processes, and what is left of a killed holder."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cas.errors import DeniedError, InterruptedOperationError, LockTimeoutError, StorageError
from cas.fsops.locks import FileLock, lock
from cas.model.cancellation import Cancellation

ROOT = Path(__file__).parents[3]


@contextmanager
def other_process(path: Path, *, shared: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Let another process hold the lock for the block."""
    code = (
        "from pathlib import Path; from cas.fsops.locks import FileLock\n"
        f"FileLock(Path({str(path)!r})).acquire(shared={shared}); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def is_free(path: Path, *, shared: bool = False) -> bool:
    """Tell whether the lock can be had at once."""
    try:
        with lock(path, shared=shared, timeout_seconds=0):
            return True
    except LockTimeoutError:
        return False


def test_lock_makes_its_file_and_directory_for_root_alone(tmp_path: Path) -> None:
    """Nobody else can take our locks to stop us."""
    path = tmp_path / "run" / "locks" / "l"
    with lock(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.exists()


def test_lock_excludes_other_holders_in_this_process(tmp_path: Path) -> None:
    """Threads exclude each other as processes do."""
    path = tmp_path / "l"
    with lock(path):
        assert not is_free(path)
        assert not is_free(path, shared=True)
    assert is_free(path)


def test_shared_locks_stand_together_and_exclude_exclusive_ones(tmp_path: Path) -> None:
    """Many readers, or one writer."""
    path = tmp_path / "l"
    with lock(path, shared=True):
        assert is_free(path, shared=True)
        assert not is_free(path)
    assert is_free(path)


def test_lock_of_another_process_times_out_and_is_named(tmp_path: Path) -> None:
    """The message says whom to wait for."""
    path = tmp_path / "l"
    with (
        other_process(path) as holder,
        pytest.raises(LockTimeoutError, match=f"held by process {holder.pid} "),
        lock(path, timeout_seconds=0.05),
    ):
        pass


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    """No crash leaves a lock behind."""
    path = tmp_path / "l"
    with other_process(path) as holder:
        assert not is_free(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock(path, timeout_seconds=10):
            pass


def test_waiting_lock_is_granted_when_the_holder_releases(tmp_path: Path) -> None:
    """A waiter gets it, without a timeout as well."""
    path = tmp_path / "l"
    first = FileLock(path).acquire()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: FileLock(path).acquire())
        assert not waiting.done()
        first.release()
        second = waiting.result(timeout=30)
    assert not is_free(path)
    second.release()


def test_lock_counts_in_many_threads_and_processes_without_losing_any(tmp_path: Path) -> None:
    """Read, add one, write: under the lock no step is lost."""
    path, counter = tmp_path / "l", tmp_path / "counter"
    counter.write_text("0")
    code = (
        "from pathlib import Path; from cas.fsops.locks import lock\n"
        f"c = Path({str(counter)!r})\n"
        "for _ in range(30):\n"
        f"  with lock(Path({str(path)!r})): c.write_text(str(int(c.read_text()) + 1))"
    )

    def count() -> None:
        for _ in range(30):
            with lock(path):
                counter.write_text(str(int(counter.read_text()) + 1))

    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(count) for _ in range(4)]:
            done.result()
    assert [process.wait() for process in processes] == [0, 0]
    assert counter.read_text() == "180"


def test_wait_for_a_lock_ends_when_cancelled(tmp_path: Path) -> None:
    """A stopped operation does not wait for somebody else's work."""
    path, cancel = tmp_path / "l", Cancellation()
    with lock(path):
        cancel.set()
        with pytest.raises(InterruptedOperationError):
            FileLock(path).acquire(cancel=cancel)
    # A free lock is granted: whoever asks next for the flag stops then.
    FileLock(path).acquire(cancel=cancel).release()


def test_interrupted_wait_leaves_no_descriptor(tmp_path: Path) -> None:
    """Waiting and failing many times costs nothing."""
    path = tmp_path / "l"
    with lock(path):
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            assert not is_free(path)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_lock_object_held_twice_is_a_programming_error(tmp_path: Path) -> None:
    """Waiting for oneself would never end."""
    with FileLock(tmp_path / "l") as held, pytest.raises(RuntimeError):
        held.acquire()
    held.release()
    held.release()
    assert is_free(tmp_path / "l")


def test_lock_file_removed_by_somebody_still_excludes(tmp_path: Path) -> None:
    """A waiter for the removed file does not get in beside the holder of the new one."""
    path = tmp_path / "l"
    old = FileLock(path).acquire()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: FileLock(path).acquire(timeout_seconds=30))
        path.unlink()
        new = waiting.result()
    assert path.exists()
    old.release()
    assert not is_free(path)
    new.release()


def test_lock_released_by_the_parent_is_free_in_spite_of_a_forked_child(tmp_path: Path) -> None:
    """A child between fork and exec does not keep our locks."""
    path = tmp_path / "l"
    held = FileLock(path).acquire()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    held.release()
    assert is_free(path)
    os.close(writing)
    os.close(reading)
    os.waitpid(child, 0)


def test_lock_ends_when_its_block_raises(tmp_path: Path) -> None:
    """An exception releases it as the end of the block does."""
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "l"):
        _ = 1 / 0
    assert is_free(tmp_path / "l")


def test_lock_through_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """A planted link would let us lock, or make, a file elsewhere."""
    (tmp_path / "l").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="ELOOP"), lock(tmp_path / "l"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_lock_without_the_right_is_denied(tmp_path: Path) -> None:
    """A user without rights is told so, and is not kept waiting."""
    path = tmp_path / "l"
    path.touch(mode=0o600)
    tmp_path.chmod(0o700)
    raised: list[Exception] = []

    def as_nobody() -> None:
        # The calling thread's file system identity alone, so that the test stays root.
        import ctypes

        ctypes.CDLL(None).setfsuid(65534)
        try:
            FileLock(path).acquire(timeout_seconds=0)
        except DeniedError as error:
            raised.append(error)

    thread = threading.Thread(target=as_nobody)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_lock_file_removed_by_its_holder_is_a_time_out_to_the_others(tmp_path: Path) -> None:
    """Whoever looks for the holders of a lock may find that its file has just gone."""
    path = tmp_path / "l"
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            with lock(path):
                path.unlink()

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(come_and_go)
        try:
            free = [is_free(path) for _ in range(1000)]
            while all(free):
                free = [is_free(path) for _ in range(1000)]
        finally:
            done.set()
        holder.result()
