"""seccomp: which system calls this process may make.

A list of what is forbidden, since what Python and the libraries below it call differs between
versions and machines. Forbidden is what leads out of the other walls: new programs and processes,
namespaces, mounts, keyrings, other processes' memory, and doors that pass filters by (io_uring).
"""

__all__ = ["Sockets", "compile_filter", "export_filter"]

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cache
from typing import Any

_CLONE_THREAD = 0x00010000
_CLONE_NEW_NAMESPACES = (
    0x00000080,  # time
    0x00020000,  # mount
    0x02000000,  # cgroup
    0x04000000,  # uts
    0x08000000,  # ipc
    0x10000000,  # user
    0x20000000,  # pid
    0x40000000,  # network
)
_BECOMING = ("execve",)
_FORBIDDEN = (
    *("execveat", "fork", "vfork"),
    *("unshare", "setns", "chroot", "pivot_root"),
    *("mount", "umount", "umount2", "mount_setattr", "move_mount", "open_tree"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "swapon", "swapoff", "quotactl", "quotactl_fd"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kill", "tkill"),
    *("rt_sigqueueinfo", "rt_tgsigqueueinfo"),
    *("add_key", "request_key", "keyctl"),
    *("bpf", "perf_event_open", "userfaultfd", "fanotify_init", "lookup_dcookie"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("open_by_handle_at", "name_to_handle_at", "personality", "acct", "syslog", "vhangup"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname"),
    *("listen", "accept", "accept4"),
)
_SOCKET_CALLS = ("socket", "socketpair", "connect", "bind", "sendto", "sendmsg", "sendmmsg")


_UNKNOWN = -1
"""What libseccomp answers for the name of a system call that it does not know."""


class Sockets(StrEnum):
    """Which sockets may be made."""

    NONE = "none"
    INTERNET = "internet"
    """IPv4 and IPv6, and netlink, which the resolver asks for the machine's addresses."""


_INTERNET_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_LAST_FAMILY = 63
"""Families are listed up to here and forbidden beyond; Linux has about 46."""


class _Compare(Enum):
    """How the first argument is compared; named as libseccomp names it."""

    EQ = "EQ"
    GT = "GT"
    NE = "NE"
    MASKED_EQ = "MASKED_EQ"


@dataclass(frozen=True, slots=True)
class _Rule:
    """A system call that fails, always or if its first argument compares."""

    name: str
    compare: _Compare | None = None
    operands: tuple[int, ...] = ()
    answer: int = errno.EPERM


def compile_filter(sockets: Sockets) -> Callable[[], None]:
    """Prepare to forbid what no agent needs, with "operation not permitted" as the answer.

    Args:
        sockets: Which sockets may be made then.

    Returns:
        What forbids it, in all threads; it raises ``OSError`` where the kernel has no filters.

    Raises:
        ImportError: libseccomp is not installed, or cannot be used.
    """
    # A thread that aborts signals itself.
    signals = _Rule("tgkill", _Compare.NE, (os.getpid(),))
    rules = [*map(_Rule, _BECOMING), signals, *_rules(sockets)]
    try:
        load: Callable[[], None] = _filter(rules).load
    except (RuntimeError, OSError) as error:
        raise ImportError(str(error)) from error
    return load


@cache
def export_filter(sockets: Sockets) -> bytes:
    """Compile the filter for a program that another process becomes, which loads it before.

    As :func:`compile_filter`, but that one may become a program, and signal nobody.

    Returns:
        What the kernel takes; compiled once.

    Raises:
        ImportError: libseccomp is not installed, or cannot be used.
    """
    descriptor = os.memfd_create("seccomp")
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _filter([_Rule("tgkill"), *_rules(sockets)]).export_bpf(file)
            file.seek(0)
            return file.read()
    except (RuntimeError, OSError) as error:
        raise ImportError(str(error)) from error


def _rules(sockets: Sockets) -> Iterator[_Rule]:
    yield from map(_Rule, _FORBIDDEN)
    yield from _process_rules()
    yield from _socket_rules(sockets)


def _process_rules() -> Iterator[_Rule]:
    """Threads may be made and nothing else, by the one call whose flags a filter can see."""
    for flag in _CLONE_NEW_NAMESPACES:
        yield _Rule("clone", _Compare.MASKED_EQ, (flag, flag))
    yield _Rule("clone", _Compare.MASKED_EQ, (_CLONE_THREAD, 0))
    # The C library goes on with clone where this one is missing.
    yield _Rule("clone3", answer=errno.ENOSYS)


def _socket_rules(sockets: Sockets) -> Iterator[_Rule]:
    if sockets is Sockets.NONE:
        yield from map(_Rule, _SOCKET_CALLS)
        return
    for family in range(_LAST_FAMILY + 1):
        if family not in _INTERNET_FAMILIES:
            yield _Rule("socket", _Compare.EQ, (family,))
    # The kernel looks at 32 bits of the argument, a filter at 64.
    yield _Rule("socket", _Compare.GT, (_LAST_FAMILY,))


def _filter(rules: Iterable[_Rule]) -> Any:  # noqa: ANN401 - the library has no types
    import pyseccomp  # noqa: PLC0415 - fails where libseccomp is not installed

    filters = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    filters.set_attr(pyseccomp.Attr.CTL_TSYNC, 1)
    for rule in rules:
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, rule.name)
        if number == _UNKNOWN:
            continue
        conditions = []
        if rule.compare is not None:
            operator = getattr(pyseccomp, rule.compare.value)
            conditions.append(pyseccomp.Arg(0, operator, *rule.operands))
        filters.add_rule(pyseccomp.ERRNO(rule.answer), number, *conditions)
    return filters
