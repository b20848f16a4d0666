"""A containerd that outlived its supervisor.

It cannot be taken over: its log goes into a pipe that nobody reads, and its next line would be its
end. So the next supervisor ends it, if it is beyond doubt that it is such an orphan: it holds the
database of this very root or was started to do so, it was started by one of our supervisors, and
that one is dead. What a supervisor is called, and the root, stand in containerd's environment from
its first moment on, so that there is no file to be written too late or to be out of date.
"""

__all__ = ["ROOT", "SUPERVISOR", "end_orphan", "supervised_environment"]

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

from cas.containerd.root_directory import find_root_holder
from cas.fsops.pinned_process import PinnedProcess
from cas.fsops.processes import ProcessIdentity, is_dead, iter_processes

_log = logging.getLogger(__name__)

SUPERVISOR = "CAS_SUPERVISOR"
ROOT = "CAS_SUPERVISED_ROOT"
_OURS_ALONE = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
"""What the service manager tells the service; containerd would answer it."""
_GRACE_SECONDS = 10.0
_SEPARATOR = ":"


def supervised_environment(
    environment: Mapping[str, str], supervisor: ProcessIdentity, root: Path
) -> dict[str, str]:
    """Give the environment of a containerd that ``supervisor`` starts on ``root``."""
    inherited = {key: value for key, value in environment.items() if key not in _OURS_ALONE}
    named = _SEPARATOR.join(map(str, astuple(supervisor)))
    return {**inherited, SUPERVISOR: named, ROOT: str(root.absolute())}


def end_orphan(root: Path) -> bool:
    """End any containerd on ``root`` whose supervisor is certainly dead. Idempotent.

    Any other containerd is left alone. One that is just starting is found, too: it would wait for
    the database, and take it as soon as the next one lets go.

    Returns:
        Whether there was an orphan.

    Raises:
        StorageError: /proc cannot be read.
    """
    holder = find_root_holder(root)
    holders = [] if holder is None else [holder.pid]
    ended = [_end(pid) for pid in dict.fromkeys([*holders, *_started_on(root)])]
    return any(ended)


def _started_on(root: Path) -> Iterator[int]:
    for pid in iter_processes():
        with suppress(OSError):  # it ended, or is not for us to see
            if any(place.samefile(root) for place in _supervised_roots(Path(f"/proc/{pid}"))):
                yield pid


def _supervised_roots(process: Path) -> Iterator[Path]:
    """Give what its environment says, seen from its own root directory."""
    mark = os.fsencode(f"{ROOT}=")
    for entry in (process / "environ").read_bytes().split(b"\0"):
        if entry.startswith(mark):
            yield Path(f"{process}/root{os.fsdecode(entry.removeprefix(mark))}")


def _end(pid: int) -> bool:
    with PinnedProcess(pid) as process:
        supervisor = _parse(process.environment().get(SUPERVISOR, ""))
        if supervisor is None or not is_dead(supervisor):
            return False
        _log.warning(
            "ending the containerd that a killed supervisor left pid=%s supervisor=%s",
            process.pid,
            supervisor.pid,
        )
        process.end(_GRACE_SECONDS)
    return True


def _parse(text: str) -> ProcessIdentity | None:
    try:
        boot_id, pid, start_time, pid_namespace = text.split(_SEPARATOR)
        return ProcessIdentity(boot_id, int(pid), int(start_time), int(pid_namespace))
    except ValueError:
        return None
