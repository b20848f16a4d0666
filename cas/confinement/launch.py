"""Runs a program of others in confinement: ``python -I -m cas.confinement.launch``.

The order comes as JSON on standard input, whose end the program then finds there. This process
gives up its rights and becomes the program, so that no code of ours runs beside others' threads
between a fork and an exec.
"""

__all__ = ["LAUNCH_FAILED", "LAUNCH_MODULE", "Order", "main"]

import json
import os
import resource
import sys
from base64 import b64decode
from pathlib import Path
from typing import NamedTuple, NoReturn

from cas.confinement import privileges
from cas.confinement.paths import restrict_paths

LAUNCH_MODULE = "cas.confinement.launch"
LAUNCH_FAILED = 125
"""Exit status if the program was not reached; the reason is on standard error."""

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_LIBRARIES = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc/ld.so.cache", "/etc/alternatives"),
)
_OPEN_FILES = 64
_ROOT = 0


class Order(NamedTuple):
    """What to run, and what it may do; it travels as a JSON array, its bytes in base64.

    Of the plainest kind, since what else reads JSON takes longer to load than qemu-img to run.

    Args:
        command: Absolute path of the program, and its arguments.
        files: Inherited descriptors of the files that it may open again.
        user: User id that it takes on; root keeps its id, without capabilities.
        group: Group id that it takes on.
        parent: Process id of whoever started this one, with whom it dies.
        memory_bytes: Address space that it may use.
        cpu_seconds: Processor time that it may use; 0 for any.
        file_bytes: How large it may make a file.
        system_calls: Filter of :func:`cas.confinement.system_calls.export_filter`; empty for none.
        required: Refuse to run it where a part of the confinement is missing.
    """

    command: list[str]
    files: list[int]
    user: int
    group: int
    parent: int
    memory_bytes: int
    cpu_seconds: int
    file_bytes: int
    system_calls: bytes
    required: bool


def main() -> NoReturn:
    """Become the program."""
    order = Order(*json.loads(sys.stdin.buffer.read()))
    order = order._replace(system_calls=b64decode(order.system_calls))
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
    reason = restrict_paths(
        writable=(),
        readable=(),
        changeable=[Path(os.devnull), *(Path(f"/proc/self/fd/{each}") for each in order.files)],
        programs=[Path(order.command[0]), *map(Path, _LIBRARIES)],
    )
    if reason is not None:
        missing["landlock"] = reason
    _limit(order)
    os.chdir("/")
    if order.user != _ROOT:
        privileges.become(order.user, order.group)
    privileges.drop_capabilities()
    privileges.die_with_parent(order.parent)
    _filter(order, missing)
    return missing


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
