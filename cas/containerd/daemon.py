"""The supervisor of an embedded containerd.

One :class:`Daemon` owns one child process. The child is no member of our process group, so that
Ctrl-C reaches us only and we end it in order. A child outlives a SIGKILL of its supervisor; here
that is somebody else's containerd, on whose root no second one is started. See
``cas.daemon.orphan`` for who may end it.
"""

__all__ = ["Daemon"]

import logging
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cas.containerd.client import Containerd
from cas.containerd.config import render
from cas.containerd.place import Place
from cas.containerd.root_directory import find_root_holder, heal_identity, prepare_directories
from cas.containerd.socket_path import check_socket_path
from cas.errors import (
    CasError,
    ContainerdMissingError,
    DaemonUnavailableError,
    DaemonVersionError,
    DeniedError,
    InterruptedOperationError,
    InUseError,
    StorageError,
)
from cas.model.settings import Settings

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.005
_WATCH_SECONDS = 0.2
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
_KEPT_LINES = 10
_CHATTER = re.compile(r"\blevel=(info|debug)\b")
_UMASK = 0o022
"""Under a stricter one snapshot roots would become unreadable for the programs in them."""


def _discard(line: str) -> None:
    """Drop a line of the log."""


def _never() -> bool:
    """Go on."""
    return False


def _ignore() -> None:
    """Let it end."""


class Daemon:
    """An embedded containerd; use it as a context manager, or stop it.

    Args:
        settings: Which binary it is, and where it lives.
        place: Where it lives instead of in the store.
        log: Gets every line that containerd logs, from a thread of ours.
        environment: containerd's; None for this process's own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        place: Place | None = None,
        log: Callable[[str], None] = _discard,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self._place = place or Place.of_store(settings)
        self._log = log
        self._environment = environment
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._place.socket

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._process.pid if self.is_running() and self._process else None

    def is_running(self) -> bool:
        """Tell whether the child lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, stop: threading.Event | None = None) -> None:
        """Start containerd and wait until it answers real calls. Nothing happens if it runs.

        After a failure no child is left.

        Args:
            stop: Ends the wait early.

        Raises:
            ContainerdMissingError: There is no such binary.
            DaemonVersionError: It is too old, or its snapshotter does not work here.
            DaemonUnavailableError: It ended, or did not answer in ``settings.wait_seconds``; the
                message has its last words.
            InUseError: Another containerd runs on the same root.
            SocketPathError: ``persist`` or ``address`` is too long.
            DeniedError: This user is not root.
            StorageError: Its directories or its configuration cannot be written.
            InterruptedOperationError: ``stop`` was set.
        """
        if self.is_running():
            return
        binary = self._prepare()
        self._spawn(binary)
        try:
            self._await_answer(stop)
        except BaseException:
            self.kill()
            raise
        _logger.info("containerd started pid=%s socket=%s", self.pid, self.socket)

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Ask containerd to end, and kill it if it has not after the grace. Idempotent."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            _logger.warning("containerd had to be killed pid=%s", process.pid)
        self.kill()

    def kill(self) -> None:
        """Kill containerd and wait for its end. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        self._finish_log()
        _logger.info("containerd ended pid=%s status=%s", process.pid, process.returncode)

    def run_forever(
        self,
        stop: threading.Event,
        *,
        on_end: Callable[[], None] = _ignore,
        paused: Callable[[], bool] = _never,
    ) -> None:
        """Keep containerd running until ``stop`` is set, then stop it.

        A containerd that ends is started again, after a pause that doubles each time.

        Args:
            stop: Ends it.
            on_end: Called whenever containerd has ended by itself, before it is started again.
            paused: Asked again and again: containerd is stopped as soon as it says yes, and
                started when it says no.

        Raises:
            CasError: The first start failed, or a later one in a way that does not pass.
        """
        try:
            self.start(stop)
        except InterruptedOperationError:
            return
        pause = _FIRST_PAUSE_SECONDS
        try:
            while True:
                began = time.monotonic()
                if self._outlives(stop, paused):
                    return
                if paused():
                    if self._pause(stop, paused):
                        return
                    continue
                if time.monotonic() - began > _HEALTHY_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                on_end()
                _logger.error("containerd ended by itself pause=%.1f log=%r", pause, self._tail())
                if stop.wait(pause):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                self._restart(stop)
        finally:
            self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _prepare(self) -> str:
        if os.geteuid() != 0:
            raise DeniedError("containerd needs root: it mounts and owns what it unpacks")
        check_socket_path(self.socket)
        check_socket_path(self._place.ttrpc)
        binary = shutil.which(self.settings.containerd_binary)
        if binary is None:
            raise ContainerdMissingError(
                f"there is no program {self.settings.containerd_binary!r}; install containerd "
                "1.6 or newer",
                binary=self.settings.containerd_binary,
            )
        place = self._place
        self._refuse_second_daemon(None)
        prepare_directories(place)
        heal_identity(place.root)
        try:
            place.config.write_text(render(self.settings, place), encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"cannot write {place.config}: {error}", path=place.config
            ) from error
        return binary

    def _refuse_second_daemon(self, own_pid: int | None) -> None:
        root = self._place.root
        holder = find_root_holder(root)
        if holder is not None and holder.pid != own_pid:
            raise InUseError(
                f"{holder.command} (pid {holder.pid}) runs on {root} already; use it with "
                "--address, or stop it first",
                path=root,
                pid=holder.pid,
            )

    def _spawn(self, binary: str) -> None:
        self._lines.clear()
        try:
            self._process = subprocess.Popen(
                [binary, "--config", str(self._place.config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=self._environment,
                umask=_UMASK,
                start_new_session=True,
            )
        except OSError as error:
            raise ContainerdMissingError(f"cannot run {binary}: {error}", binary=binary) from error
        self._reader = threading.Thread(
            target=self._read_log, args=(self._process.stdout,), name="containerd-log", daemon=True
        )
        self._reader.start()

    def _read_log(self, output: IO[str] | None) -> None:
        with output or nullcontext(()) as lines:
            for line in lines:
                text = line.rstrip("\n")
                self._lines.append(text)
                # Whoever listened may be gone; containerd dies of a log that nobody reads.
                with suppress(OSError):
                    self._log(text)

    def _finish_log(self) -> None:
        if self._reader is not None:
            self._reader.join()
            self._reader = None

    def _tail(self) -> str:
        lines = list(self._lines)
        telling = [line for line in lines if _CHATTER.search(line) is None]
        return " | ".join(telling or lines[-1:]) or "(it logged nothing)"

    def _await_answer(self, stop: threading.Event | None) -> None:
        deadline = time.monotonic() + self.settings.wait_seconds
        while not _accepts(self.socket):
            self._check_coming(stop)
            if time.monotonic() > deadline:
                raise DaemonUnavailableError(
                    f"containerd did not listen on {self.socket} after "
                    f"{self.settings.wait_seconds:.0f} seconds; its last words: {self._tail()}",
                    socket=self.socket,
                )
            time.sleep(_POLL_SECONDS)
        while not self._answers(deadline):
            self._check_coming(stop)
        self._check_alive()
        # Somebody else's daemon may have answered, while ours waits for its lock.
        self._refuse_second_daemon(self.pid)

    def _check_coming(self, stop: threading.Event | None) -> None:
        """Return if an answer may still come, and is waited for."""
        self._check_alive()
        if stop is not None and stop.is_set():
            raise InterruptedOperationError("containerd was stopped while it was starting")

    def _check_alive(self) -> None:
        if self._process is None or self._process.poll() is None:
            return
        self._finish_log()
        raise DaemonUnavailableError(
            f"containerd ended with status {self._process.returncode} instead of starting; its "
            f"last words: {self._tail()}",
            status=self._process.returncode,
        )

    def _answers(self, deadline: float) -> bool:
        """Call it for a moment; whether it answered, which it has to until the deadline."""
        try:
            self._call_it()
        except DaemonUnavailableError:
            if time.monotonic() > deadline:
                raise
            return False
        return True

    def _call_it(self) -> None:
        with Containerd.connect(
            self.socket,
            namespace=self.settings.namespace,
            snapshotter=self.settings.snapshotter,
            wait_seconds=_WATCH_SECONDS,
        ) as containerd:
            problem = containerd.facts.snapshotter_error
        if problem is not None:
            raise DaemonVersionError(f"containerd cannot keep snapshots: {problem}")

    def _pause(self, stop: threading.Event, paused: Callable[[], bool]) -> bool:
        """Stop containerd for a while, and start it again; True if we are asked to stop."""
        self.stop()
        _logger.info("containerd pauses")
        while paused():
            if stop.wait(_WATCH_SECONDS):
                return True
        self._restart(stop)
        return stop.is_set()

    def _outlives(self, stop: threading.Event, paused: Callable[[], bool]) -> bool:
        """Wait for an end: True if we are asked to stop, False if containerd ended or pauses."""
        while not stop.wait(_WATCH_SECONDS):
            if paused():
                return False
            if not self.is_running():
                self.kill()
                return False
        return True

    def _restart(self, stop: threading.Event) -> None:
        try:
            self.start(stop)
        except CasError as error:
            if not error.temporary:
                raise
            _logger.warning("containerd could not be started again error=%s", error)


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
