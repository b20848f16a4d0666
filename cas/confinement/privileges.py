"""System calls about what a process may do, each as a typed function.

A call that fails raises ``OSError`` with the kernel's errno. All of them act on the calling thread,
so they are made before there is a second one.
"""

__all__ = [
    "become",
    "die_with_parent",
    "drop_capabilities",
    "empty_bounding_set",
    "forbid_core_dumps",
    "forbid_new_privileges",
    "forbid_system_calls",
    "leave_network",
    "limit_files",
    "restrict_paths",
]

import ctypes
import errno
import os
import resource
import signal
from functools import cache

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION_BYTES = 8
_LANDLOCK_RESTRICT_SELF = 446
"""The same number on every architecture. Source: include/uapi/asm-generic/unistd.h."""
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_MOST_CAPABILITIES = 64
_LARGEST_FILE = 2**63 - 1


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return library


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, first: int = 0, second: int = 0) -> None:
    _checked(_libc().prctl(option, first, second, 0, 0))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    Forgotten by the kernel when the user changes: call it again after that.

    Args:
        parent: Process id of the parent.

    Raises:
        ProcessLookupError: The parent has ended already.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ProcessLookupError(errno.ESRCH, f"parent process {parent} is gone")


def forbid_new_privileges() -> None:
    """Make set-user-id programs and file capabilities ordinary, for this process and its own."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_core_dumps() -> None:
    """Keep what is in memory, credentials for example, from ever reaching a core file.

    Undone in part by the kernel when the user changes: call it again after that.

    Source: core(5): where cores go to a program, no limit counts.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def limit_files(size: int) -> None:
    """Let no file that this process writes become larger, whoever it is; needs no right.

    Args:
        size: Bytes; a write beyond them fails with ``EFBIG``, as Python ignores the signal.
    """
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    most = min(size, _LARGEST_FILE if hard == resource.RLIM_INFINITY else hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def forbid_system_calls(program: bytes) -> None:
    """Put this thread, and what it becomes, under a seccomp filter; new privileges are forbidden.

    Args:
        program: Instructions of the kernel's, 8 bytes each.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    filters = _FilterProgram(len(program) // _INSTRUCTION_BYTES, ctypes.addressof(instructions))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filters))


def restrict_paths(rules: int) -> None:
    """Put this thread, and what it becomes, under Landlock; new privileges are forbidden.

    Args:
        rules: Descriptor of :func:`cas.confinement.paths.export_rules`.
    """
    _checked(_libc().syscall(_LANDLOCK_RESTRICT_SELF, rules, 0))


def leave_network() -> None:
    """Move into a network namespace of its own, which has no interface that is up."""
    _checked(_libc().unshare(_CLONE_NEWNET))


def become(user: int, group: int) -> None:
    """Take on user and group, real, effective and saved, without supplementary groups."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def empty_bounding_set() -> None:
    """See to it that no capability can ever be gained again; needs CAP_SETPCAP itself."""
    for capability in range(_MOST_CAPABILITIES):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # past the last one that this kernel has
            raise


def drop_capabilities() -> None:
    """Empty the effective, permitted, inheritable and ambient sets."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    nothing = (_CapabilityData * 2)()
    _checked(_libc().capset(ctypes.byref(header), nothing))
