"""Who a process is, across reboots and reuse of process ids.

A process id alone names nobody: it is reused. Together with the boot and the start time it names
one process for ever. Judging is one-sided on purpose: :func:`is_dead` says yes only when it is
certain, since its callers then delete what the dead one owned.
"""

__all__ = ["ProcessIdentity", "boot_time", "current", "is_dead", "iter_processes", "process_name"]

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cas.errors import StorageError
from cas.fsops.translation import translated

_PROC = Path("/proc")
_STATE_FIELD = 3
_START_TIME_FIELD = 22
_DEAD_STATES = frozenset("XxZ")
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Fixed by the kernel: the namespace that sees every process."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, for ever.

    Args:
        boot_id: The kernel's random id of this boot.
        pid: Process id, as its own pid namespace counts.
        start_time: Clock ticks between boot and its start.
        pid_namespace: Inode number of that namespace.
    """

    boot_id: str
    pid: int
    start_time: int
    pid_namespace: int


def current() -> ProcessIdentity:
    """Identify this process.

    Raises:
        StorageError: /proc cannot be read.
    """
    with translated("read", _PROC):
        stat = (_PROC / "self" / "stat").read_text(errors="replace")
        return ProcessIdentity(
            boot_id=_boot_id(),
            pid=os.getpid(),
            start_time=int(_field(stat, _START_TIME_FIELD)),
            pid_namespace=_namespace("self", "pid"),
        )


def is_dead(identity: ProcessIdentity) -> bool:
    """Tell whether a process is certainly gone.

    False also stands for "cannot be told from here", as for a process of another container.

    Raises:
        StorageError: /proc cannot be read.
    """
    with translated("read", _PROC):
        if identity.boot_id != _boot_id():
            return True
        if identity.pid_namespace != _namespace("self", "pid"):
            return _namespace_is_gone(identity.pid_namespace)
        return _proc_is_ours() and _is_gone(identity)


def _proc_is_ours() -> bool:
    """Whether /proc counts processes as we do; a pid namespace may have been left without one."""
    return os.readlink(_PROC / "self") == str(os.getpid())


def _is_gone(identity: ProcessIdentity) -> bool:
    directory = _PROC / str(identity.pid)
    try:
        stat = (directory / "stat").read_text(errors="replace")
        if _field(stat, _STATE_FIELD) in _DEAD_STATES:
            # A leader may end before its threads do; then it looks dead while they work.
            return len(list((directory / "task").iterdir())) <= 1
    except (FileNotFoundError, ProcessLookupError):
        return True
    if int(_field(stat, _START_TIME_FIELD)) == identity.start_time:
        return False
    try:
        # Start times are counted from the time namespace's own boot and do not compare across.
        return _namespace(str(identity.pid), "time") == _namespace("self", "time")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _namespace_is_gone(inode: int) -> bool:
    """Look for anybody in a pid namespace; only the initial one sees all processes."""
    if _namespace("self", "pid") != _INITIAL_PID_NAMESPACE:
        return False
    # The first process of all began the initial namespace, and may be closed to us.
    others = (entry.name for entry in _PROC.iterdir() if entry.name.isdigit())
    return not any(_may_be_in(process, inode) for process in others if process != "1")


def _may_be_in(process: str, inode: int) -> bool:
    try:
        return _namespace(process, "pid") == inode
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:
        return True


def iter_processes() -> Iterator[int]:
    """Yield the ids of the processes that there are; any may end meanwhile.

    Raises:
        StorageError: /proc cannot be read.
    """
    with translated("list", _PROC):
        names = [entry.name for entry in _PROC.iterdir()]
    yield from (int(name) for name in names if name.isdigit())


def process_name(pid: int) -> str:
    """The kernel's short name of a process; empty if it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text(errors="replace").rstrip("\n")
    except OSError:
        return ""


def boot_time() -> datetime:
    """When this machine started, to the second, as aware UTC.

    The kernel counts back from the clock of today, so that setting the clock moves it.

    Raises:
        StorageError: /proc cannot be read.
    """
    path = _PROC / "stat"
    with translated("read", path):
        lines = path.read_text().splitlines()
    for line in lines:
        if line.startswith("btime "):
            return datetime.fromtimestamp(int(line.split()[1]), tz=UTC)
    message = f"{str(path)!r} does not tell when the machine started"
    raise StorageError(message, path=path)


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _namespace(process: str, kind: str) -> int:
    # Not followed: the link's text alone names the namespace, as in "pid:[4026531836]".
    return int(os.readlink(_PROC / process / "ns" / kind).partition("[")[2].rstrip("]"))


def _field(stat: str, number: int) -> str:
    # The second field is the command in parentheses and may hold spaces and parentheses.
    return stat.rpartition(")")[2].split()[number - _STATE_FIELD]
