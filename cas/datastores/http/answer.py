"""An answer of a server: its headers, and its body read with limits."""

__all__ = ["Answer"]

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from urllib3.response import BaseHTTPResponse

from cas.datastores.http.failures import refusal, translated
from cas.errors import (
    CasError,
    LimitExceededError,
    SourceStalledError,
    SourceUnavailableError,
)
from cas.model.limits import CHUNK_BYTES

_MAX_QUOTE_BYTES = 8 * 1024
_BODY_SECONDS = 120.0
_QUOTE_SECONDS = 10.0


class Answer:
    """The answer to one request; its connection is used up by reading to the end.

    Args:
        response: Not read yet, not to be decoded.
        url: Where it came from, after redirects.
        what: The datastore and the object, for messages.
    """

    def __init__(self, response: BaseHTTPResponse, url: str, what: str) -> None:
        self._response = response
        self.url = url
        self.what = what

    @property
    def status(self) -> int:
        """Status code."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Header fields; names in any case."""
        return self._response.headers

    def header_values(self, name: str) -> list[str]:
        """Give a field that came several times, each time apart."""
        return list(self._response.headers.getlist(name))

    def chunks(self) -> Iterator[bytes]:
        """Read the body as it was sent, at most 1 MiB at a time, as soon as something comes.

        Raises:
            SourceUnavailableError: It ends before its announced length, or the connection broke.
            SourceStalledError: Nothing came within the idle limit.
            SourceProtocolError: Its framing is wrong.
        """
        empty = True
        with translated(self.what):
            while chunk := self._response.read1(CHUNK_BYTES, decode_content=False):
                empty = False
                yield chunk
        if empty and not self._is_framed():
            # A cut within the headers looks just so to http.client.
            raise SourceUnavailableError(f"{self.what}: the connection ended before the first byte")

    def _is_framed(self) -> bool:
        """Whether the end of the body is something that the server says, not a closed line."""
        return "Content-Length" in self.headers or "Transfer-Encoding" in self.headers

    def body(self, limit: int) -> bytes:
        """Read the whole body, within two minutes: the idle limit alone lets it drip for ever.

        Raises:
            SourceStalledError: It was not complete in that time.
            LimitExceededError: It has more than ``limit`` bytes; no more than a chunk above them
                was read.
        """
        parts, size = [], 0
        with self._within(_BODY_SECONDS):
            for chunk in self.chunks():
                parts.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise LimitExceededError(
                        f"{self.what}: the answer has more than the {limit} bytes allowed",
                        limit=limit,
                    )
        return b"".join(parts)

    def refusal(self) -> CasError:
        """Make the error that this answer stands for; it is no success."""
        quote = b""
        with suppress(CasError), self._within(_QUOTE_SECONDS):
            for chunk in self.chunks():
                quote += chunk
                if len(quote) >= _MAX_QUOTE_BYTES:
                    break
        text = quote[:_MAX_QUOTE_BYTES].decode(errors="replace")
        return refusal(self.status, self.headers, self.what, text)

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """End the reading in the block after so many seconds, with SourceStalledError."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self.abort()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except SourceUnavailableError:
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        if late.is_set():  # a body that ends with its connection looks complete then
            message = f"{self.what}: the answer was not complete after {seconds:g} seconds"
            raise SourceStalledError(message)

    def abort(self) -> None:
        """Make a read that waits in another thread fail. Idempotent, never raises."""
        with suppress(OSError, RuntimeError, ValueError):
            self._response.shutdown()

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it. Idempotent."""
        if self._response.closed:
            self._response.release_conn()
        else:
            self._response.close()
