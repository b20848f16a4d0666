"""A program of others, run in confinement, under a deadline, and heard with bounded ears."""

__all__ = ["ConfinedProgram", "ProgramLimits"]

import errno
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from cas.agent.account import Account
from cas.confinement.launch import LAUNCH_FAILED, LAUNCH_MODULE, LIBRARIES, Order
from cas.confinement.paths import export_rules
from cas.confinement.system_calls import Sockets, export_filter
from cas.errors import (
    ConfinementError,
    DeadlineExceededError,
    InterruptedOperationError,
    QemuImgError,
)
from cas.fsops.translation import storage_error
from cas.model.cancellation import Cancellation
from cas.model.printable import printable

_log = logging.getLogger(__name__)

_HEARD_BYTES = 4 * 1024 * 1024
"""Who says more than that is made to by what it reads."""
_WORDS_CHARACTERS = 1000
_READ_BYTES = 64 * 1024
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """What a run of the program may take.

    Args:
        silence_seconds: How long it may say nothing before it counts as hanging.
        memory_bytes: Of address space.
        cpu_seconds: Of processor time; 0 for any.
        file_bytes: How large it may make a file.
    """

    silence_seconds: float
    memory_bytes: int
    cpu_seconds: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class ConfinedProgram:
    """A program and who it runs as.

    Args:
        path: Absolute path of the program.
        account: User and group.
        require_confinement: Refuse to run it where a part of the confinement is missing.
    """

    path: str
    account: Account
    require_confinement: bool

    def run(
        self,
        arguments: Sequence[str],
        *,
        files: Sequence[int],
        limits: ProgramLimits,
        cancel: Cancellation | None = None,
        listen: Callable[[bytes], None] = lambda _: None,
    ) -> bytes:
        """Run it to its end.

        Args:
            arguments: Of the program; an open file is ``/proc/self/fd/N``.
            files: Descriptors that it may open again, to read and to write as its user may.
            limits: What it may take.
            cancel: Ends it.
            listen: Told what it prints, as it comes.

        Returns:
            All that it printed.

        Raises:
            StorageError: No file can be opened any more.
            QemuImgError: It failed, or met a limit, of which one is 4 MiB of words.
            DeadlineExceededError: It hangs.
            ConfinementError: It cannot be confined as it must.
            InterruptedOperationError: ``cancel`` was set.
        """
        cancel = cancel or Cancellation()
        hearing = _Hearing(limits.silence_seconds, listen)
        with self._rules(files) as rules, self._started(files, rules) as process:
            try:
                with cancel.notifying(partial(_kill, process)):
                    _give(process, self._order(arguments, rules, limits).encode())
                    hearing.hear(process)
            finally:
                _kill(process)
        if cancel.is_set():
            raise InterruptedOperationError(f"{self._name} was stopped by its caller")
        self._judge(arguments, process.returncode, hearing)
        return bytes(hearing.output)

    @property
    def _name(self) -> str:
        return os.path.basename(self.path)  # noqa: PTH119 - a name, no file

    @contextmanager
    def _rules(self, files: Sequence[int]) -> Iterator[int | str]:
        """Give a descriptor of the rules on paths, or the reason why the kernel has none."""
        programs = [Path(self.path), *map(Path, LIBRARIES)]
        try:
            with Path(os.devnull).open("rb") as nothing:
                rules = export_rules(changeable=[nothing.fileno(), *files], programs=programs)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # such as no more open files: no reason to do without
                raise storage_error("confine", self.path, error) from error
            yield str(error.strerror)
            return
        try:
            yield rules
        finally:
            os.close(rules)

    def _started(self, files: Sequence[int], rules: int | str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            (sys.executable, "-I", "-m", LAUNCH_MODULE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=files if isinstance(rules, str) else [*files, rules],
            start_new_session=True,  # Ctrl-C reaches it through this process
            cwd="/",
        )

    def _order(self, arguments: Sequence[str], rules: int | str, limits: ProgramLimits) -> Order:
        return Order(
            command=[self.path, *arguments],
            user=self.account.user,
            group=self.account.group,
            parent=os.getpid(),
            memory_bytes=limits.memory_bytes,
            cpu_seconds=limits.cpu_seconds,
            file_bytes=limits.file_bytes,
            paths=rules,
            system_calls=_system_calls(),
            required=self.require_confinement,
        )

    def _judge(self, arguments: Sequence[str], status: int, hearing: "_Hearing") -> None:
        words = printable(hearing.words.decode(errors="replace").strip())[-_WORDS_CHARACTERS:]
        if hearing.hangs:
            raise DeadlineExceededError(
                f"{self._name} {arguments[0]} said nothing for {hearing.silence_seconds:g} s and "
                "was ended; look whether the disk is slow, and try again",
                program=self._name,
            )
        if hearing.babbles:
            raise QemuImgError(
                f"{self._name} {arguments[0]} said more than {_HEARD_BYTES} bytes and was ended: "
                f"{words}",
                program=self._name,
            )
        if status == LAUNCH_FAILED:
            raise ConfinementError(
                f"{self._name} cannot be confined as it must: {words or 'no reason'}",
                program=self._name,
            )
        if status != 0:
            raise QemuImgError(
                f"{self._name} {arguments[0]} ended {_how(status)}: {words or 'it said nothing'}",
                program=self._name,
                status=status,
            )
        if words:
            _log.info("program says program=%s words=%s", self._name, words)


class _Hearing:
    """Reads both pipes until they end, or until nothing has come for too long."""

    def __init__(self, silence_seconds: float, listen: Callable[[bytes], None]) -> None:
        self.silence_seconds = silence_seconds
        self.output = bytearray()
        self.words = bytearray()
        self.hangs = False
        self._heard = 0
        self._listen = listen

    @property
    def babbles(self) -> bool:
        """Whether it said more than anybody needs to."""
        return self._heard > _HEARD_BYTES

    def hear(self, process: "subprocess.Popen[bytes]") -> None:
        last = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for pipe, kept in ((process.stdout, self.output), (process.stderr, self.words)):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ, kept)
            while selector.get_map() and not self.hangs and not self.babbles:
                ready = selector.select(_LOOK_SECONDS)
                for key, _ in ready:
                    chunk = os.read(key.fd, _READ_BYTES)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    self._keep(key.data, chunk)
                now = time.monotonic()
                last = now if ready else last
                self.hangs = now - last > self.silence_seconds

    def _keep(self, kept: bytearray, chunk: bytes) -> None:
        self._heard += len(chunk)
        kept += chunk
        if kept is self.output and chunk:
            self._listen(chunk)


def _system_calls() -> bytes:
    try:
        return export_filter(Sockets.NONE)
    except ImportError:
        return b""  # which is said of the process that lacks it


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End it with everything that it started; it is not waited for yet, so its number is its."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _give(process: "subprocess.Popen[bytes]", order: bytes) -> None:
    pipe: IO[bytes] | None = process.stdin
    if pipe is None:
        return
    try:
        pipe.write(order)
        pipe.close()
    except BrokenPipeError:
        return  # it has ended, and its status says how


def _how(status: int) -> str:
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"
