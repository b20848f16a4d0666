"""The life of ``cas serve``.

In order: an upgrade by command is waited for; one service per persist directory; the socket, on
which health and the vaults are served; the vault has to be open; what older software left is
converted; containerd, unless somebody else runs it; the store; the agents' confinement; recovery;
old content is ingested; the calls for the store. Then it waits. The end goes the other way round,
so that running calls still have a containerd to unwind against. Whatever kills the process in
between leaves what the next start puts right.
"""

__all__ = ["serve"]

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from cas.app import Case, open_vaults, require_root
from cas.confinement.memory import bound_arenas
from cas.daemon.conversion import convert_old_layout, ingest_old_content, tell_what_waits
from cas.daemon.failures import Failures
from cas.daemon.metrics import Metrics
from cas.daemon.metrics_server import open_metrics_server
from cas.daemon.notification import ServiceManager
from cas.daemon.opening import OpenedStore, opened_store
from cas.daemon.recovery import RecoveryRunner
from cas.daemon.watch import WAITING_FOR_VAULT, Watch
from cas.errors import InUseError, LockTimeoutError
from cas.fsops.durable import set_owner_and_mode
from cas.fsops.locks import FileLock, is_locked
from cas.model.settings import Settings
from cas.pull.rehearsal import rehearse_confinement
from cas.rpc.health import HealthProbe
from cas.rpc.server import Server
from cas.store.directories import require_group

_log = logging.getLogger(__name__)

_RECOVERY_POLL_SECONDS = 0.2
_UPGRADE_POLL_SECONDS = 0.2
_RECOVERY_END_SECONDS = 10.0
_PASSAGE = 0o710
"""Others than root may pass through the directory to the socket, and see nothing else in it."""


def serve(settings: Settings, *, stop: threading.Event) -> None:
    """Serve the store until ``stop`` is set, then end in order.

    Args:
        settings: Where and how; without ``address`` the store's own containerd is supervised.
        stop: Ends it: no new calls, running ones have ``settings.stop_seconds``.

    Raises:
        InUseError: Another service, or another containerd, works on this persist directory.
        CasError: As :meth:`cas.app.Case.open`; or containerd cannot be started, or not again.
        InternalError: A thread of the service ended with a defect.
    """
    require_root()
    bound_arenas()
    if not _upgraded(settings, stop):
        return
    metrics = Metrics()
    with (
        _sole_service(settings),
        _told_manager("starting") as manager,
        _opened_server(settings, metrics) as server,
        opened_store(
            settings,
            stop=stop,
            on_wait=partial(_wait_for_vault, settings, manager),
            on_ingested=metrics.ingested,
            before_start=partial(convert_old_layout, settings, manager, stop),
        ) as opened,
    ):
        if opened is None:
            server.stop(settings.stop_seconds)
            return
        failures = Failures(stop)
        _serve_store(server, opened, metrics, manager, failures, stop)
        failures.raise_first()


def _upgraded(settings: Settings, stop: threading.Event) -> bool:
    """Wait while a command upgrades this persist directory; False if the service is to stop."""
    command = settings.layout.upgrade_command_lock
    if is_locked(command):
        _log.warning("waiting for the upgrade that a command does path=%s", settings.persist)
    while is_locked(command):
        if stop.wait(_UPGRADE_POLL_SECONDS):
            return False
    return True


def _wait_for_vault(settings: Settings, manager: ServiceManager) -> None:
    manager.status(WAITING_FOR_VAULT)
    tell_what_waits(settings)


def _serve_store(
    server: Server,
    opened: OpenedStore,
    metrics: Metrics,
    manager: ServiceManager,
    failures: Failures,
    stop: threading.Event,
) -> None:
    settings, case, containerd = server.settings, opened.case, opened.containerd
    with ExitStack() as stack:
        rehearse_confinement(settings)
        recovery = RecoveryRunner(case.recover, metrics.recovered, failures=failures)
        stack.callback(recovery.close, _RECOVERY_END_SECONDS)
        if not _recovered(recovery, stop):
            return
        if ingest_old_content(case, manager, stop):
            recovery.request()
        stack.enter_context(_metrics_served(case, metrics))
        server.open_store(case)
        probe = stack.enter_context(HealthProbe(settings.service_socket))
        watch = stack.enter_context(
            Watch(
                case,
                server,
                probe=probe,
                manager=manager,
                metrics=metrics,
                recovery=recovery,
                failures=failures,
            )
        )
        if containerd is not None:
            containerd.on_end = watch.containerd_ended
        manager.ready()
        _log.info("service serves socket=%s", settings.service_socket)
        stop.wait()
        _log.info("service stops")
        manager.stopping()
        watch.leave()
        server.stop(settings.stop_seconds)


@contextmanager
def _told_manager(status: str) -> Iterator[ServiceManager]:
    """Give the service manager, told of a status."""
    with ServiceManager() as manager:
        manager.status(status)
        yield manager


@contextmanager
def _sole_service(settings: Settings) -> Iterator[None]:
    """Hold the lock that tells that a service works on this persist directory."""
    lock = FileLock(settings.layout.service_lock)
    try:
        lock.acquire(timeout_seconds=0)
    except LockTimeoutError as error:
        raise InUseError(
            f"a service or an upgrade works on {settings.persist} already, process "
            f"{error.details['holders']}; use that one, or stop it first",
            path=settings.persist,
            holders=error.details["holders"],
        ) from error
    with lock:
        yield


def _recovered(recovery: RecoveryRunner, stop: threading.Event) -> bool:
    """Wait until recovery went through once; False if the service is to stop before."""
    recovery.request()
    while not recovery.wait_for_first(_RECOVERY_POLL_SECONDS):
        if stop.is_set():
            return False
        if recovery.pending:
            recovery.request()
    return not stop.is_set()


def _opened_server(settings: Settings, metrics: Metrics) -> Server:
    """Give the server, not started; members of its group shall reach the socket."""
    socket, group = settings.service_socket, require_group(settings, "volumemgr")
    if socket.parent == settings.layout.run:
        set_owner_and_mode(socket.parent, user=0, group=group, mode=_PASSAGE)
    vaults = partial(open_vaults, settings)
    return Server(settings, socket, vaults=vaults, gid=group, observer=metrics)


@contextmanager
def _metrics_served(case: Case, metrics: Metrics) -> Iterator[None]:
    """Serve the metrics where that was asked for."""
    settings = case.settings
    if settings.metrics_address is None:
        yield
        return
    metrics.watch(settings.layout, case.guard, case.containerd.blobs_directory)
    group = require_group(settings, "volumemgr")
    with open_metrics_server(settings.metrics_address, metrics.registry, group=group):
        yield
