"""A containerd of the store's own: prepared, supervised, ended."""

__all__ = ["prepare_containerd", "run_containerd"]

import os
import threading
from collections.abc import Callable

from cas.app import require_root
from cas.containerd.daemon import Daemon
from cas.daemon.orphan import end_orphan, supervised_environment
from cas.fsops import processes
from cas.model.settings import Settings
from cas.store.directories import require_directories
from cas.store.guard import VaultGuard


def prepare_containerd(settings: Settings, *, log: Callable[[str], None]) -> Daemon:
    """See that the store's containerd may run, and end one that a killed supervisor left.

    Args:
        settings: Persist directory, binary, owners.
        log: Receives containerd's log, line by line.

    Returns:
        The supervisor, which has not started anything yet.

    Raises:
        DeniedError: The process is not root.
        LayoutError: The layout was not initialised.
        VaultLockedError: The vault is locked.
        VaultNotEncryptedError: The vault is plain and encryption is required.
    """
    require_root()
    layout = settings.layout
    VaultGuard(layout, require_encryption=settings.require_encryption).check_writable()
    require_directories(settings, (layout.vault, layout.case))
    end_orphan(layout.case)
    environment = supervised_environment(os.environ, processes.current())
    return Daemon(settings, log=log, environment=environment)


def run_containerd(
    settings: Settings, *, announce: Callable[[str], None], stop: threading.Event
) -> None:
    """Run the store's containerd until ``stop`` is set.

    Args:
        settings: Persist directory, binary, owners.
        announce: Receives containerd's log, line by line.
        stop: Ends it.

    Raises:
        ContainerdMissingError: There is no containerd binary.
        DaemonVersionError: It is too old.
        SocketPathError: The socket's path is too long for the kernel.
        InUseError: Another containerd holds the root.
        LayoutError: The layout was not initialised.
        VaultLockedError: The vault is locked.
    """
    prepare_containerd(settings, log=announce).run_forever(stop)
