"""Directories outside of all snapshots, in which layers are unpacked side by side.

One session of one process has a directory of its own, whose lock file says that it lives. What a
killed session leaves is removed by :func:`sweep_staging`.
"""

__all__ = ["StagedLayer", "Staging", "StagingUnsuitableError", "iter_abandoned", "sweep_staging"]

import logging
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from cas.errors import CasError, LockTimeoutError
from cas.fsops.durable import is_temporary, make_directory, remove_file, remove_temporaries
from cas.fsops.locks import FileLock
from cas.fsops.translation import translated
from cas.fsops.trees import remove_tree
from cas.model.records import Mount
from cas.store.image.resolution import Layer

_LOGGER = logging.getLogger(__name__)

_LOCK_SUFFIX = ".lock"
_REMOVAL_ATTEMPTS = 20
_REMOVAL_PAUSE_SECONDS = 0.05
_STEP_NANOSECONDS = 500_000_000
"""Larger differences between the two clocks are no drift: somebody set the clock."""


class StagingUnsuitableError(Exception):
    """The snapshotter or the clock is not what staging needs; unpack layer by layer instead."""


class StagedLayer:
    """The place of one layer.

    Args:
        layer: The layer.
        directory: Does not exist yet.
        is_base: Whether it is the lowest layer of its image.
    """

    def __init__(self, layer: Layer, directory: Path, *, is_base: bool) -> None:
        self.layer = layer
        self.files = directory / "fs"
        self._directory = directory
        self._is_base = is_base
        self._begin = self._end = 0
        self._begin_monotonic = self._end_monotonic = 0
        with translated("make", directory):
            directory.mkdir(mode=0o700)
            for name in ("fs", "work", "empty"):
                (directory / name).mkdir()
                (directory / name).chmod(0o755)

    @property
    def mounts(self) -> list[Mount]:
        """What containerd is told to unpack onto.

        The base is a plain directory, in which whiteouts delete: as characters devices they would
        show in a view of the base alone. In the others whiteouts must stay what they are.
        """
        if self._is_base:
            return [Mount("bind", str(self.files), ("rw", "rbind"))]
        work, empty = self._directory / "work", self._directory / "empty"
        options = (f"workdir={work}", f"upperdir={self.files}", f"lowerdir={empty}")
        return [Mount("overlay", "overlay", options)]

    def begin(self) -> None:
        """Note the time at which unpacking begins."""
        self._begin_monotonic = time.monotonic_ns()
        self._begin = self._stamp("begin")

    def end(self) -> None:
        """Note the time at which unpacking ended."""
        self._end = self._stamp("end")
        self._end_monotonic = time.monotonic_ns()

    @property
    def window(self) -> tuple[int, int]:
        """Earliest and latest time of change, in nanoseconds, that unpacking itself can have set.

        Raises:
            StagingUnsuitableError: The clock was set meanwhile, so that nobody knows.
        """
        elapsed = self._end_monotonic - self._begin_monotonic
        if abs((self._end - self._begin) - elapsed) > _STEP_NANOSECONDS:
            message = "the clock was set while layers were unpacked"
            raise StagingUnsuitableError(message)
        return self._begin - _STEP_NANOSECONDS, self._end + _STEP_NANOSECONDS

    def _stamp(self, name: str) -> int:
        """Ask the file system for its time, which is not to the tick that of the clock."""
        probe = self._directory / name
        with translated("make", probe):
            probe.mkdir()
            return probe.stat().st_mtime_ns


class Staging:
    """A session's directory; a context manager that removes it at the end.

    Args:
        directory: Where all sessions have theirs.
    """

    def __init__(self, directory: Path) -> None:
        token = secrets.token_hex(8)
        self._sessions = directory
        self._directory = directory / token
        self._lock_file = directory / f"{token}{_LOCK_SUFFIX}"
        self._lock = FileLock(self._lock_file)

    def add(self, layer: Layer, number: int, *, is_base: bool) -> StagedLayer:
        """Make the place of a layer."""
        return StagedLayer(layer, self._directory / str(number), is_base=is_base)

    def __enter__(self) -> Self:
        make_directory(self._sessions, mode=0o700, parents=True)
        self._lock.acquire(timeout_seconds=0)
        try:
            make_directory(self._directory, mode=0o700)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        try:
            _remove_stubbornly(self._directory)
            remove_file(self._lock_file, sync=False)
        except CasError as second:
            _LOGGER.warning("staged layers are left to recovery error=%s", second)
        finally:
            self._lock.release()


def _remove_stubbornly(directory: Path) -> None:
    """Remove a tree into which containerd may write for some moments more."""
    pause = threading.Event()
    for _ in range(_REMOVAL_ATTEMPTS):
        try:
            remove_tree(directory)
        except CasError:
            pause.wait(_REMOVAL_PAUSE_SECONDS)
        else:
            return
    remove_tree(directory)


def _remove_for_good(directory: Path) -> None:
    """Remove a tree of a killed session; containerd may have to notice yet that nobody waits.

    What it unpacks meanwhile makes its directories anew.
    """
    pause = threading.Event()
    for _ in range(_REMOVAL_ATTEMPTS):
        _remove_stubbornly(directory)
        pause.wait(2 * _REMOVAL_PAUSE_SECONDS)
        if not directory.exists():
            return


def sweep_staging(directory: Path) -> list[Path]:
    """Remove what killed sessions left; living ones are left alone. Idempotent.

    Args:
        directory: Where all sessions have theirs; may be missing.

    Returns:
        The directories that were removed.
    """
    if not directory.is_dir():
        return []
    remove_temporaries(directory)
    removed: list[Path] = []
    for session in iter_abandoned(directory):
        if session.is_dir():
            _remove_for_good(session)
            removed.append(session)
        remove_file(_lock_file(session), sync=False)
    return removed


def iter_abandoned(directory: Path) -> Iterator[Path]:
    """Yield the directories of killed sessions; nobody else takes one up while it is in hand.

    Args:
        directory: Where all sessions have theirs; may be missing.
    """
    if not directory.is_dir():
        return
    # By directory as well as by lock file: a session makes its lock first and holds it to its end.
    names = {path.with_suffix("") for path in directory.iterdir() if not is_temporary(path.name)}
    for session in sorted(names):
        held = FileLock(_lock_file(session))
        try:
            held.acquire(timeout_seconds=0)
        except LockTimeoutError:
            continue
        try:
            yield session
        finally:
            held.release()


def _lock_file(session: Path) -> Path:
    return session.with_suffix(_LOCK_SUFFIX)
