"""A containerd that outlived its supervisor.

It cannot be taken over: its log goes into a pipe that nobody reads, and its next line would be its
end. So the next supervisor ends it, if it is beyond doubt that it is such an orphan: it holds the
database of this very root, it was started by one of our supervisors, and that one is dead. What a
supervisor is called stands in containerd's environment from its first moment on, so that there is
no file to be written too late or to be out of date.
"""

__all__ = ["SUPERVISOR", "end_orphan", "supervised_environment"]

import logging
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from cas.containerd.root_directory import find_root_holder
from cas.fsops.pinned_process import PinnedProcess
from cas.fsops.processes import ProcessIdentity, is_dead

_log = logging.getLogger(__name__)

SUPERVISOR = "CAS_SUPERVISOR"
_OURS_ALONE = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"})
"""What the service manager tells the service; containerd would answer it."""
_GRACE_SECONDS = 10.0
_SEPARATOR = ":"


def supervised_environment(
    environment: Mapping[str, str], supervisor: ProcessIdentity
) -> dict[str, str]:
    """Give the environment of a containerd that ``supervisor`` starts."""
    inherited = {key: value for key, value in environment.items() if key not in _OURS_ALONE}
    return {**inherited, SUPERVISOR: _SEPARATOR.join(map(str, astuple(supervisor)))}


def end_orphan(root: Path) -> bool:
    """End the containerd on ``root`` if its supervisor is certainly dead. Idempotent.

    Any other containerd is left alone.

    Returns:
        Whether there was an orphan.

    Raises:
        StorageError: /proc cannot be read.
    """
    holder = find_root_holder(root)
    if holder is None:
        return False
    with PinnedProcess(holder.pid) as process:
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
