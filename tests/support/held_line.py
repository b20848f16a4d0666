"""A way to a server on which nothing comes any more after some bytes, until it is let go on."""

__all__ = ["HeldLine"]

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests.support.daemon import WAIT_SECONDS

_PIECE_BYTES = 64 * 1024


class HeldLine:
    """Passes connections on to a port; a context manager that ends them.

    Args:
        port: Of the server.
        after: Bytes that come from there, over all connections, before it holds them.
    """

    def __init__(self, port: int, after: int) -> None:
        self._server = ("127.0.0.1", port)
        self._left = after
        self._guard = threading.Lock()
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def release(self) -> None:
        """Hold nothing any more."""
        self._released.set()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT_SECONDS)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):  # the end
            while True:
                client, _ = self._listener.accept()
                self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            there = threading.Thread(target=_pass_on, args=(client, server, lambda _: None))
            there.start()
            _pass_on(server, client, self._hold)
            there.join()

    def _hold(self, amount: int) -> None:
        with self._guard:
            self._left -= amount
            holds = self._left < 0
        if holds:
            self._released.wait()


def _pass_on(source: socket.socket, target: socket.socket, before: Callable[[int], None]) -> None:
    """Pass on what comes until either is gone, and end both."""
    with suppress(OSError):
        while data := source.recv(_PIECE_BYTES):
            before(len(data))
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
