"""A web server that does what real ones do not: lies, cuts, drips, floods, loops.

Raw sockets, one request per connection, one thread per connection. A path has a list of
behaviours, one per request; the last one stays. What was asked is recorded.
"""

__all__ = ["Behaviour", "HostileServer", "Line", "Request", "answer", "raw", "resource"]

import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from tests.support.daemon import WAIT_SECONDS
from tests.support.waiting import wait_for

DATE = "Tue, 25 Nov 2025 12:00:00 GMT"
OLD = "Mon, 24 Nov 2025 12:00:00 GMT"
REASONS = {200: "OK", 206: "Partial Content"}
RANGE = re.compile(r"bytes=(\d+)-$")
_LOOK_SECONDS = 0.02


@dataclass
class Request:
    """One request: ``target`` as it was sent, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """Target without query."""
        return self.target.partition("?")[0]


@dataclass
class Line:
    """The connection of one request."""

    socket: socket.socket
    released: threading.Event
    sent: int = 0

    def send(self, data: bytes) -> None:
        """Send; a client that is gone ends the behaviour."""
        self.socket.sendall(data)
        self.sent += len(data)

    def flood(self, data: bytes) -> None:
        """Send it again and again until the client is gone; one that is slow is waited for."""
        self.socket.settimeout(_LOOK_SECONDS)  # a client that reads no more need not be gone
        rest = memoryview(data)
        while not self.released.is_set():
            with suppress(TimeoutError):
                rest = rest[self.socket.send(rest) :] or memoryview(data)

    def hold(self) -> None:
        """Keep the connection open without a word, until client or server ends it."""
        self.socket.settimeout(_LOOK_SECONDS)
        while not self.released.is_set():
            try:
                if not self.socket.recv(1024):
                    return
            except TimeoutError:
                continue

    def is_open(self) -> bool:
        """Whether the client is still there, and this server too."""
        readable, _, _ = select.select([self.socket], [], [], 0)
        try:
            gone = readable and not self.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return False
        return not gone and not self.released.is_set()

    def reset(self) -> None:
        """End the connection the hard way."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


Behaviour = Callable[[Request, Line], None]


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Whatever')}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Behaviour:
    """Answer with status, headers and body, as they are."""

    def behave(request: Request, line: Line) -> None:
        fields = {"Date": DATE, "Content-Length": str(len(body)), **(headers or {})}
        line.send(_head(status, fields) + (b"" if request.method == "HEAD" else body))

    return behave


def raw(data: bytes, *, forever: bytes = b"") -> Behaviour:
    """Send bytes instead of an answer, and then some more again and again."""

    def behave(request: Request, line: Line) -> None:
        line.send(data)
        if forever:
            line.flood(forever)

    return behave


def _at_once(line: Line, first: int) -> None:
    """Keep no pace."""


def resource(
    body: bytes,
    *,
    etag: str | None = '"one"',
    modified: str | None = None,
    ranges: bool = True,
    conditions: bool = True,
    cut_after: int | None = None,
    then: Callable[[Line], None] | None = None,
    length: int | None = None,
    part: str | None = None,
    headers: Mapping[str, str] | None = None,
    piece: int = 256 * 1024,
    pace: Callable[[Line, int], None] | None = None,
) -> Behaviour:
    """Deliver an object as a good server does, but for what the options say.

    Args:
        body: The object.
        etag: None sends none.
        modified: Last-Modified.
        ranges: Understand Range.
        conditions: Understand If-Match and If-Unmodified-Since.
        cut_after: Send only so many bytes of the body.
        then: What to do after the cut; closing is the default.
        length: Content-Length to claim; -1 sends none.
        part: Content-Range to claim.
        headers: More of them, or others.
        piece: Bytes per send.
        pace: Called before each piece with the number of its first byte in the object.
    """

    def behave(request: Request, line: Line) -> None:
        fields = {"Date": DATE}
        if etag is not None:
            fields["ETag"] = etag
        if modified is not None:
            fields["Last-Modified"] = modified
        wanted = request.headers
        mismatch = wanted.get("if-match", etag) != etag
        mismatch |= wanted.get("if-unmodified-since", modified) != modified
        if conditions and mismatch:
            line.send(_head(412, {**fields, "Content-Length": "0"}))
            return
        start, status, data = 0, 200, body
        match = RANGE.match(wanted.get("range", ""))
        if ranges and match is not None:
            start = int(match[1])
            status, data = 206, body[start:]
            fields["Content-Range"] = part or f"bytes {start}-{len(body) - 1}/{len(body)}"
        if length != -1:
            fields["Content-Length"] = str(len(data) if length is None else length)
        line.send(_head(status, {**fields, **(headers or {})}))
        if request.method == "HEAD":
            return
        for offset in range(0, len(data[:cut_after]), piece):
            (pace or _at_once)(line, start + offset)
            line.send(data[:cut_after][offset : offset + piece])
        if cut_after is not None and then is not None:
            then(line)

    return behave


@dataclass
class _Route:
    behaviours: list[Behaviour]
    served: int = 0


@dataclass
class HostileServer:
    """The server; leaving its ``with`` block ends it and every connection.

    Args:
        context: TLS, if any.
    """

    context: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    """Body bytes and headers sent per path."""

    def __post_init__(self) -> None:
        self._routes: dict[str, _Route] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []
        self._guard = threading.Lock()
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """Scheme and address."""
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def on(self, path: str, *behaviours: Behaviour) -> str:
        """Behave so on a path; gives its URL."""
        self._routes[path] = _Route(list(behaviours))
        return self.url + path

    def asked(self, path: str) -> list[Request]:
        """Requests for one path, in order."""
        return [request for request in self.requests if request.path == path]

    def await_idle(self) -> None:
        """Wait until nothing is being answered, so that all is counted."""
        wait_for(lambda: not any(thread.is_alive() for thread in self._threads[1:]))

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        # A blocked accept does not notice that its socket is closed.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._released.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(WAIT_SECONDS)
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        request = _read_request(connection)
        if request is None:
            return
        with self._guard:
            self.requests.append(request)
            route = self._routes.get(request.path)
            if route is None:
                behaviour = answer(404, body=b"nothing here")
            else:
                last = len(route.behaviours) - 1
                behaviour = route.behaviours[min(route.served, last)]
                route.served += 1
        line = Line(connection, self._released)
        try:
            behaviour(request, line)
        finally:
            with self._guard:
                self.sent[request.path] = self.sent.get(request.path, 0) + line.sent


def _read_request(connection: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Request(method, target, headers, body)
