"""Connections whose answers begin in time or not at all, and can be ended from another thread."""

__all__ = ["Connection", "TLSConnection", "end_line"]

import socket
from contextlib import suppress

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse, HTTPResponse

from cas.datastores.waiting import limited

_HEADERS_TIMES_IDLE = 3
"""How many idle limits the headers of an answer may take as a whole."""


def end_line(response: BaseHTTPResponse) -> None:
    """Make a read of an answer that waits in another thread fail. Idempotent, never raises."""
    connection = response.connection
    if isinstance(connection, Connection | TLSConnection):
        _cut(connection.line)


def _cut(line: object) -> None:
    # Both directions, since a peer may go on to send into one that is closed for reading only; and
    # past TLS, which would hand out what comes after it as it is.
    if isinstance(line, socket.socket):
        with suppress(OSError):
            socket.socket.shutdown(line, socket.SHUT_RDWR)


class _Limited(HTTPConnection):
    line: object = None
    """The socket; an answer that ends with its connection takes it away from there."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3 does
        self.line, idle = self.sock, self.timeout
        seconds = idle * _HEADERS_TIMES_IDLE if isinstance(idle, int | float) else None
        with limited(lambda: _cut(self.line), seconds):
            return super().getresponse()


class Connection(_Limited):
    """A connection in clear."""


class TLSConnection(_Limited, HTTPSConnection):
    """A connection over TLS."""
