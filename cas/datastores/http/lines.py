"""Connections whose answers begin in time or not at all, and can be ended from another thread."""

__all__ = ["Connection", "TLSConnection", "end_line"]

import socket
from contextlib import AbstractContextManager, suppress

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import BaseHTTPResponse, HTTPResponse

from cas.datastores.waiting import awaited, limited
from cas.model.cancellation import check_operation

_TIMES_STEP = 3
"""How many limits of silence a connection, or the headers of an answer, may take as a whole."""


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
    """The socket; TLS takes it over under another name, an answer takes it away at its end."""

    def _new_conn(self) -> socket.socket:
        # Neither the look-up of a name nor several addresses one after the other have a limit.
        line = awaited(super()._new_conn, socket.socket.close, self._seconds())
        check_operation()
        self.line = line.dup()
        return line

    def connect(self) -> None:
        with self._limited():
            try:
                super().connect()
            finally:
                if isinstance(self.line, socket.socket):
                    self.line.close()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # as urllib3 does
        self.line = self.sock
        with self._limited():
            return super().getresponse()

    def _limited(self) -> AbstractContextManager[None]:
        """A limit to all of what has one for each step: a proxy, a handshake, headers."""
        return limited(lambda: _cut(self.line), self._seconds())

    def _seconds(self) -> float | None:
        step = self.timeout
        return step * _TIMES_STEP if isinstance(step, int | float) else None


class Connection(_Limited):
    """A connection in clear."""


class TLSConnection(_Limited, HTTPSConnection):
    """A connection over TLS."""
