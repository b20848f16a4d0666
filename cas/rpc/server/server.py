"""The server: a unix socket with everything behind it."""

__all__ = ["Server"]

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from cas.errors import ServiceOpeningError
from cas.fsops.memory import give_memory_back
from cas.model.settings import Settings
from cas.rpc.limits import MESSAGE_BYTES
from cas.rpc.server.blobs import BlobsServicer
from cas.rpc.server.dispatch import Dispatcher, Servicer
from cas.rpc.server.gate import Gate
from cas.rpc.server.health import HealthServicer
from cas.rpc.server.images import ImagesServicer
from cas.rpc.server.paths import AllowedPaths
from cas.rpc.server.prune import PruneCalls
from cas.rpc.server.reflection import ReflectionServicer
from cas.rpc.server.registry import NO_OBSERVER, CallObserver, Kind, Patience, RunningCalls, watched
from cas.rpc.server.served import Gates, ServedStore, Workshop
from cas.rpc.server.socket_file import SocketFile
from cas.rpc.server.store import StoreServicer
from cas.rpc.server.vault import OpenVaults, VaultServicer
from cas.rpc.server.volume_snapshots import VolumeSnapshotsServicer
from cas.rpc.server.volumes import VolumesServicer
from cas.store.guard import VaultGuard
from cas.store.workers import WorkerPool

_log = logging.getLogger(__name__)

_WORKING = 128
_PLACES = {
    Kind.WORK: _WORKING,
    Kind.LISTEN: 64,
    Kind.AWAIT: 32,
    Kind.DESCRIBE: 8,
    Kind.PROBE: 16,
}
"""Calls of each kind at once; the next are refused and may come again."""
_REFUSING = 16
"""Threads that tell others that there is no room: there is always one, so gRPC needs no limit."""
_BULK = 4
"""Calls that move content at our own pace at once: each may hold some chunks of 1 MiB per worker.
More at once were no faster on 2 cores."""
_TRANSFERS = 8
"""Blobs that move at their caller's pace at once: each may hold 2 MiB."""
_ARCHIVES = 4
"""Archives at their caller's pace at once: each may hold 5 MiB, and more what decompresses it."""
_PULLS = 4
"""Pulls at once, which mostly wait for a network."""
_ACCOUNTS = 2
"""Calls at once that hold a picture of the whole store."""
_PATIENCE = Patience()
_WATCH_SECONDS = 2.0
_LAST_WORDS_SECONDS = 1.0
"""How long answers may take to their callers after the calls have ended."""
_UNDO_SECONDS = 60.0
"""How long work that was broken off at the end may take to undo what it began."""

_LARGE_REQUESTS = 4
"""Calls with a large request at once, which takes a multiple of it when it is parsed."""
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # Fixed windows: otherwise every stream may grow to hold many MiB that nobody has read yet.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", 256),
    ("grpc.max_allowed_incoming_connections", 1024),
)


_OF_THE_STORE: tuple[type[Servicer], ...] = (
    BlobsServicer,
    ImagesServicer,
    VolumesServicer,
    VolumeSnapshotsServicer,
    StoreServicer,
)


class Server:
    """Serves one store on one unix socket, as long as its context lasts.

    Health and the vaults are served at once, the store from :meth:`open_store` on; until then its
    calls are refused, with :class:`cas.errors.VaultLockedError` while its vault is locked and
    :class:`cas.errors.ServiceOpeningError` then. Leaving the context without :meth:`stop` breaks
    calls off.

    Args:
        settings: Of the store.
        socket: Where; at most one server at a time.
        mode: Permission bits of the socket.
        gid: Its group; None leaves it to the process.
        vaults: Gives the use cases on its vaults.
        store: What is served from the start, for those who have it open already.
        observer: Is told of each call.
        patience: How long a caller may neither read nor send although it is its turn.

    Attributes:
        settings: Of the store.
        calls: Those that run.

    Example:
        >>> vaults = partial(open_vaults, settings)
        >>> with Server(settings, settings.service_socket, vaults=vaults) as server:
        ...     wait_for_vault()
        ...     server.open_store(case := Case.open(settings))
        ...     server.set_serving(True)
        ...     stop.wait()
        ...     server.stop(grace_seconds=30)
    """

    def __init__(
        self,
        settings: Settings,
        socket: Path,
        *,
        vaults: OpenVaults,
        store: ServedStore | None = None,
        mode: int = 0o660,
        gid: int | None = None,
        observer: CallObserver = NO_OBSERVER,
        patience: Patience = _PATIENCE,
    ) -> None:
        self.settings = settings
        self._socket = SocketFile(socket, mode=mode, gid=gid)
        self._large = Gate(_LARGE_REQUESTS)
        self._gates = Gates(
            bulk=Gate(_BULK),
            transfers=Gate(_TRANSFERS),
            archives=Gate(_ARCHIVES),
            pulls=Gate(_PULLS),
            account=Gate(_ACCOUNTS),
        )
        self.calls = RunningCalls(_PLACES, patience=patience, gates=(self._large, *self._gates.all))
        self._watch_seconds = min(_WATCH_SECONDS, patience.shortest / 4)
        self._workers = WorkerPool(_WORKING, "cas-rpc-work")
        self._threads = ThreadPoolExecutor(sum(_PLACES.values()) + _REFUSING, "cas-rpc")
        self._guard = VaultGuard.of(settings)
        self._servicers: dict[type[Servicer], Servicer] = {}
        self._health = HealthServicer(
            [kind.SERVICE.full_name for kind in _OF_THE_STORE],
            always=[VaultServicer.SERVICE.full_name],
        )
        self._grpc = grpc.server(self._threads, options=_OPTIONS)
        self._grpc.add_generic_rpc_handlers(self._handlers(vaults, observer))
        self._resources = ExitStack()
        self._stopped = False
        if store is not None:
            self.open_store(store)

    def _handlers(self, vaults: OpenVaults, observer: CallObserver) -> list[grpc.GenericRpcHandler]:
        shared = (self._guard, self.calls, self._large, self._workers)
        dispatcher = Dispatcher(*shared, observer)
        apart = Dispatcher(*shared, NO_OBSERVER)
        of_the_store = [
            dispatcher.handlers(kind, partial(self._of_the_store, kind)) for kind in _OF_THE_STORE
        ]
        served: list[type[Servicer]] = [
            *_OF_THE_STORE,
            VaultServicer,
            HealthServicer,
            ReflectionServicer,
        ]
        reflection = ReflectionServicer([kind.SERVICE.full_name for kind in served])
        return [
            *of_the_store,
            dispatcher.handlers(VaultServicer, partial(VaultServicer, vaults)),
            apart.handlers(HealthServicer, lambda: self._health),
            apart.handlers(ReflectionServicer, lambda: reflection),
        ]

    def open_store(self, store: ServedStore) -> None:
        """Answer the calls for the store from now on.

        Args:
            store: Of the settings; closed by the caller, after the server.
        """
        settings = self.settings
        shop = Workshop(
            store=store,
            workers=self._workers,
            gates=self._gates,
            paths=AllowedPaths((settings.layout.verifier, *settings.allowed_directories)),
        )
        prune = PruneCalls(shop)
        store_calls = StoreServicer(shop, prune, self.calls, message_bytes=MESSAGE_BYTES)
        self._servicers = {
            BlobsServicer: BlobsServicer(shop, prune),
            ImagesServicer: ImagesServicer(shop, prune),
            VolumesServicer: VolumesServicer(shop),
            VolumeSnapshotsServicer: VolumeSnapshotsServicer(shop),
            StoreServicer: store_calls,
        }

    def _of_the_store(self, kind: type[Servicer]) -> Servicer:
        servicer = self._servicers.get(kind)
        if servicer is None:
            self._guard.check_open()
            raise ServiceOpeningError("the service is opening its store; try again in a moment")
        return servicer

    def __enter__(self) -> Self:
        """Listen and answer; health says that it is not serving yet.

        Raises:
            InUseError: Another server has the socket.
            SocketPathError: Its path is too long.
            StorageError: It cannot be made.
        """
        give_memory_back()
        with ExitStack() as stack:
            self._socket.claim()
            stack.callback(self._socket.release)
            stack.callback(self._end, 0.0)
            self._socket.bind(self._grpc.add_insecure_port)
            self._grpc.start()
            stack.enter_context(watched(self.calls, self._watch_seconds))
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def set_serving(self, serving: bool) -> None:  # noqa: FBT001 - the value itself
        """Tell those who ask for health whether calls are worth making; calls are answered anyway.

        Args:
            serving: Whether the store can be worked with.
        """
        self._health.set_serving(serving=serving)

    def end_guarded_calls(self) -> None:
        """End what works on the vault, which is being locked, and may be called again and again."""
        self.calls.end_guarded()

    @property
    def running(self) -> int:
        """Calls that work right now."""
        return self.calls.count

    def stop(self, grace_seconds: float) -> bool:
        """Take no new calls, let running ones end, break off what is left, and wait for its end.

        Idempotent. Listeners for events are ended at once.

        Args:
            grace_seconds: How long running calls may take.

        Returns:
            Whether everything has ended; False if work that was broken off does not come to its
            end within a minute, such as with a containerd that hangs.
        """
        ended = self._end(grace_seconds)
        self._resources.close()
        return ended

    def _end(self, grace_seconds: float) -> bool:
        if self._stopped:  # the waiting was done
            return self.calls.await_end(0)
        self._stopped = True
        self._health.close()
        self.calls.close()
        # gRPC would answer CANCELLED to calls that come now; from us they hear to come again.
        over = self.calls.await_end(grace_seconds)
        self._grpc.stop(_LAST_WORDS_SECONDS if over else 0).wait()
        ended = self.calls.await_end(_UNDO_SECONDS)
        if not ended:
            _log.warning("calls do not end count=%s", self.calls.count)
        self._workers.shutdown(wait=False)
        self._threads.shutdown(wait=ended)
        return ended
