"""Where Prometheus fetches the metrics: HTTP on a unix socket or a TCP address.

One scrape at a time, each bounded in time, so that no number of clients costs more than one thread.
"""

__all__ = ["MetricsServer", "open_metrics_server"]

import errno
import io
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from cas.errors import ConfigError, InUseError, StorageError
from cas.fsops.dead_sockets import remove_dead_socket
from cas.fsops.durable import remove_file
from cas.fsops.socket_access import bound_for_owner, set_socket_access

_log = logging.getLogger(__name__)

_REQUEST_SECONDS = 5.0
_MODE = 0o660


class _ErrorLines(io.TextIOBase):
    """Where the library writes what went wrong with a request."""

    def write(self, text: str) -> int:
        """Send it where ours goes."""
        if text.strip():
            _log.debug("metrics request failed: %s", text.rstrip())
        return len(text)


class _Handler(WSGIRequestHandler):
    """Answers one request."""

    def get_stderr(self) -> io.TextIOBase:
        """Give what takes the library's tracebacks."""
        return _ErrorLines()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        """Send the library's lines where ours go."""
        _log.debug("metrics request %s", format % args)


class MetricsServer(WSGIServer):
    """Serves at a host and a port.

    A client has a few seconds for all of its request and for taking the answer; then its connection
    is shut down, which ends whatever the thread waits for, however slowly bytes drip.
    """

    _served: socket.socket | None = None
    _ending = False

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (its types)
        """Answer one client, until his time is over."""
        self._served = request
        if self._ending:
            _hang_up(request)
        timer = threading.Timer(_REQUEST_SECONDS, _hang_up, (request,))
        timer.daemon = True
        timer.start()
        try:
            super().process_request(request, client_address)
        finally:
            timer.cancel()
            self._served = None

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 (its names)
        """Take note of a client who went wrong or went away; no traceback for that."""
        _log.debug("metrics request failed error=%r", sys.exception())

    def end(self) -> None:
        """Stop serving, at once also where a client is being served."""
        self._ending = True
        if (served := self._served) is not None:
            _hang_up(served)
        self.shutdown()


class _SixMetricsServer(MetricsServer):
    """Serves at an IPv6 address."""

    address_family = socket.AF_INET6


class _UnixMetricsServer(MetricsServer):
    """Serves at a path."""

    address_family = socket.AF_UNIX

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__(("localhost", 0), _Handler)

    def server_bind(self) -> None:
        """Bind to the path."""
        bound_for_owner(self.socket, Path(self._path))
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection; a unix socket's peer has no address."""
        connection, _ = self.socket.accept()
        return connection, ("", 0)


@contextmanager
def open_metrics_server(address: str, registry: CollectorRegistry, *, group: int) -> Iterator[None]:
    """Serve the metrics as long as the context lasts.

    Args:
        address: ``HOST:PORT``, or an absolute path for a unix socket.
        registry: What is told.
        group: Owner group of a unix socket; its mode is 0660.

    Raises:
        ConfigError: The address is neither.
        InUseError: Somebody else serves there.
        StorageError: There is no listening there.
    """
    with _bind(address) as server:
        server.set_app(make_wsgi_app(registry))
        if isinstance(server, _UnixMetricsServer):
            set_socket_access(Path(address), group=group, mode=_MODE)
        thread = threading.Thread(target=server.serve_forever, name="cas-metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.end()
            thread.join()
            if isinstance(server, _UnixMetricsServer):
                remove_file(Path(address))


def _bind(address: str) -> MetricsServer:
    try:
        if address.startswith("/"):
            remove_dead_socket(Path(address))
            return _UnixMetricsServer(address)
        return _bind_port(address)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise InUseError(
                f"somebody serves at {address} already; stop that, or use another address",
                address=address,
            ) from error
        raise StorageError(f"cannot serve metrics at {address}: {error}") from error


def _bind_port(address: str) -> MetricsServer:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigError(
            f"metrics address {address!r} is neither HOST:PORT nor an absolute path",
            value=address,
        )
    if host.startswith("["):
        return _SixMetricsServer((host.strip("[]"), int(port)), _Handler)
    return MetricsServer((host, int(port)), _Handler)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # it ended meanwhile
        connection.shutdown(socket.SHUT_RDWR)
