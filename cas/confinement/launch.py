"""Runs a program of others in confinement: ``python -I -m cas.confinement.launch``.

The order comes on standard input, whose end the program then finds there. This process gives up
its rights and becomes the program, so that no code of ours runs beside others' threads between a
fork and an exec. It imports little: most that it could import takes longer than qemu-img to run, so
that rules are made by the process before and only put up here.
"""

__all__ = ["LAUNCH_FAILED", "LAUNCH_MODULE", "LIBRARIES", "Order", "main"]

import marshal
import os
import resource
import sys
from typing import NamedTuple, NoReturn, Self

from cas.confinement import privileges

LAUNCH_MODULE = "cas.confinement.launch"
LAUNCH_FAILED = 125
"""Exit status if the program was not reached; the reason is on standard error."""

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
LIBRARIES = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc/ld.so.cache", "/etc/alternatives"),
)
"""What a program may need of the system, to read and to run."""
_OPEN_FILES = 64
_ROOT = 0


class Order(NamedTuple):
    """What to run, and what it may do.

    Args:
        command: Absolute path of the program, and its arguments.
        user: User id that it takes on; root keeps its id, without capabilities.
        group: Group id that it takes on.
        parent: Process id of whoever started this one, with whom it dies.
        memory_bytes: Address space that it may use.
        cpu_seconds: Processor time that it may use; 0 for any.
        file_bytes: How large it may make a file.
        paths: Inherited descriptor of :func:`cas.confinement.paths.export_rules`, which is closed
            here; otherwise the reason why there are none.
        system_calls: Filter of :func:`cas.confinement.system_calls.export_filter`; empty for none.
        required: Refuse to run it where a part of the confinement is missing.
    """

    command: list[str]
    user: int
    group: int
    parent: int
    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    paths: int | str
    system_calls: bytes
    required: bool

    def encode(self) -> bytes:
        """Give what :meth:`decode` takes, in this version of Python."""
        return marshal.dumps(tuple(self))

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read an order; only from who started this process, since nothing is checked."""
        return cls(*marshal.loads(raw))  # noqa: S302 - see above; JSON takes 9 ms to import


def main() -> NoReturn:
    """Become the program."""
    order = Order.decode(sys.stdin.buffer.read())
    try:
        missing = _confine(order)
        for wall, reason in missing.items():
            print(f"lacks {wall}: {reason}", file=sys.stderr, flush=True)  # noqa: T201
        if not (missing and order.required):
            os.execve(order.command[0], order.command, _ENVIRONMENT)  # noqa: S606 - no shell
    except OSError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - it is read there
    os._exit(LAUNCH_FAILED)


def _confine(order: Order) -> dict[str, str]:
    """Give up every right that the program does not need; gives what could not be had."""
    missing: dict[str, str] = {}
    try:
        privileges.leave_network()
    except OSError as error:
        missing["no-network"] = str(error.strerror)
    privileges.empty_bounding_set()
    privileges.forbid_new_privileges()
    _restrict_paths(order, missing)
    _limit(order)
    os.chdir("/")
    if order.user != _ROOT:
        privileges.become(order.user, order.group)
    privileges.drop_capabilities()
    privileges.die_with_parent(order.parent)
    _filter(order, missing)
    return missing


def _restrict_paths(order: Order, missing: dict[str, str]) -> None:
    if isinstance(order.paths, str):
        missing["landlock"] = order.paths
        return
    try:
        privileges.restrict_paths(order.paths)
    except OSError as error:
        missing["landlock"] = str(error.strerror)
    os.close(order.paths)


def _filter(order: Order, missing: dict[str, str]) -> None:
    if not order.system_calls:
        missing["seccomp"] = "libseccomp is not installed, or cannot be used"
        return
    try:
        privileges.forbid_system_calls(order.system_calls)
    except OSError as error:
        missing["seccomp"] = str(error.strerror)


def _limit(order: Order) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_AS, (order.memory_bytes, order.memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (order.file_bytes, order.file_bytes))
    if order.cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (order.cpu_seconds, order.cpu_seconds))


if __name__ == "__main__":
    main()
