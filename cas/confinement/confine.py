"""All the walls around an agent, put up in the one order that works.

What a kernel or machine lacks is reported and never passed over in silence; whether that will do
is the caller's decision. What every Linux has (users, capabilities, no new privileges) has to work:
its failure is an error, and the agent must not go on.
"""

__all__ = ["Confinement", "ConfinementReport", "Wall", "confine"]

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cas.confinement import privileges
from cas.confinement.paths import restrict_paths
from cas.confinement.system_calls import Sockets, compile_filter
from cas.errors import ConfinementError

_UMASK = 0o027
_ROOT = 0


class Wall(StrEnum):
    """A part of the confinement; the values are stable."""

    USER = "own-user"
    CAPABILITIES = "no-capabilities"
    PATHS = "landlock"
    SYSTEM_CALLS = "seccomp"
    NETWORK = "no-network"


@dataclass(frozen=True, slots=True)
class Confinement:
    """What an agent may do.

    Args:
        user: User id that it takes on.
        group: Group id that it takes on; it has no other.
        parent: Process id of whoever started it, with whom it dies.
        directory: Becomes its working directory, and the only one that it may write in. It needs no
            right to the directories above.
        readable: Other files and directories that it may read.
        network: Whether it may reach the network.
        file_bytes: What a file may have that it writes.
    """

    user: int
    group: int
    parent: int
    directory: Path
    readable: tuple[Path, ...] = ()
    network: bool = False
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ConfinementReport:
    """What stands, and what could not be had.

    Args:
        standing: The walls that stand.
        missing: Wall to the reason why it does not stand.
    """

    standing: tuple[Wall, ...]
    missing: dict[Wall, str] = field(default_factory=dict)


def confine(wanted: Confinement) -> ConfinementReport:
    """Take from this process every right but those named. Once, with a single thread, as root.

    Returns:
        What stands.

    Raises:
        ConfinementError: Rights that can be given up everywhere could not be; do not go on.
    """
    outcome: dict[Wall, str | None] = {}
    try:
        os.chdir(wanted.directory)
        if not wanted.network:
            outcome[Wall.NETWORK] = _reason(privileges.leave_network)
        outcome[Wall.CAPABILITIES] = _reason(privileges.empty_bounding_set)
        privileges.forbid_new_privileges()
        # Libraries are read, and the directory is found by its path, while that is possible.
        restrict = _system_call_wall(wanted)
        outcome[Wall.PATHS] = restrict_paths(writable=(wanted.directory,), readable=wanted.readable)
        outcome[Wall.USER] = None if wanted.user != _ROOT else "it is configured to run as root"
        _become(wanted)
    except OSError as error:
        raise ConfinementError(
            f"an agent cannot give up its rights: {error.strerror}; it does not go on",
            directory=wanted.directory,
        ) from error
    outcome[Wall.SYSTEM_CALLS] = _reason(restrict)
    if not wanted.network and outcome[Wall.SYSTEM_CALLS] is None:
        outcome[Wall.NETWORK] = None  # without sockets it does not matter where one is
    return _report(outcome)


def _system_call_wall(wanted: Confinement) -> Callable[[], None]:
    """Give what puts the wall up; it raises ``OSError`` if that is not possible here."""
    try:
        return compile_filter(Sockets.INTERNET if wanted.network else Sockets.NONE)
    except ImportError as error:
        reason = str(error)

    def fail() -> None:
        raise OSError(errno.ENOSYS, reason)

    return fail


def _become(wanted: Confinement) -> None:
    os.umask(_UMASK)
    privileges.become(wanted.user, wanted.group)
    privileges.forbid_core_dumps()
    privileges.limit_files(wanted.file_bytes)
    privileges.drop_capabilities()
    privileges.die_with_parent(wanted.parent)


def _reason(action: Callable[[], None]) -> str | None:
    try:
        action()
    except OSError as error:
        return error.strerror
    return None


def _report(outcome: Mapping[Wall, str | None]) -> ConfinementReport:
    return ConfinementReport(
        standing=tuple(wall for wall, reason in outcome.items() if reason is None),
        missing={wall: reason for wall, reason in outcome.items() if reason is not None},
    )
