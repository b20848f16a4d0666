"""Where Prometheus fetches the metrics: HTTP on a unix socket or a TCP address.

One scrape at a time, each bounded in time, so that no number of clients costs more than one thread.
"""

__all__ = ["MetricsServer", "open_metrics_server"]

import logging
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from cas.errors import ConfigError, InUseError, StorageError
from cas.fsops.durable import remove_file

_log = logging.getLogger(__name__)

_REQUEST_SECONDS = 5.0
_MODE = 0o660


class _Handler(WSGIRequestHandler):
    """Answers one request, or gives up on a client that is slow."""

    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
        """Send the library's lines where ours go."""
        _log.debug("metrics request %s", format % args)


class MetricsServer(WSGIServer):
    """Serves at a host and a port."""


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
        self.socket.bind(self._path)
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
            os.chown(address, -1, group)
            Path(address).chmod(_MODE)
        thread = threading.Thread(target=server.serve_forever, name="cas-metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            if isinstance(server, _UnixMetricsServer):
                remove_file(Path(address))


def _bind(address: str) -> MetricsServer:
    try:
        if address.startswith("/"):
            _remove_stale(Path(address))
            return _UnixMetricsServer(address)
        return _bind_port(address)
    except (OSError, OverflowError) as error:
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


def _remove_stale(path: Path) -> None:
    """Remove a socket at which nobody listens any more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise InUseError(f"{path} is there and no socket; metrics need another path", path=path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            remove_file(path)
        else:
            raise InUseError(f"somebody serves at {path} already; use another path", path=path)
