"""An answer of a server: its headers, and its body read with limits."""

__all__ = ["Answer"]

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial

from urllib3.response import BaseHTTPResponse

from cas.datastores.http.failures import refusal, translated
from cas.datastores.http.lines import end_line
from cas.datastores.waiting import limited, watched_reads
from cas.errors import (
    CasError,
    LimitExceededError,
    SourceStalledError,
    SourceUnavailableError,
)
from cas.model.cancellation import check_operation
from cas.model.limits import CHUNK_BYTES

_MAX_QUOTE_BYTES = 8 * 1024
_BODY_SECONDS = 120.0
_QUOTE_SECONDS = 10.0
_READ_SECONDS = 60.0
"""For one read of a body in chunks, their framing included."""


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
            SourceStalledError: Nothing came within the idle limit, or framing and no content.
            SourceProtocolError: Its framing is wrong.
        """
        empty = True
        with translated(self.what), closing(self._reads()) as chunks:
            for chunk in chunks:
                empty = False
                yield chunk
        if empty and not self._is_framed():
            # A cut within the headers looks just so to http.client.
            raise SourceUnavailableError(f"{self.what}: the connection ended before the first byte")

    def _reads(self) -> Generator[bytes, None, None]:
        read = partial(self._response.read1, CHUNK_BYTES, decode_content=False)
        if "Transfer-Encoding" in self.headers:
            yield from watched_reads(read, self.abort, _READ_SECONDS)
        else:
            yield from iter(read, b"")

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
        """Make the error that this answer stands for; it is no success.

        Raises:
            InterruptedOperationError: This context's operation was stopped.
        """
        quote = b""
        with suppress(CasError), self._within(_QUOTE_SECONDS):
            for chunk in self.chunks():
                quote += chunk
                if len(quote) >= _MAX_QUOTE_BYTES:
                    break
        check_operation()
        text = quote[:_MAX_QUOTE_BYTES].decode(errors="replace")
        return refusal(self.status, self.headers, self.what, text)

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        try:
            with limited(self.abort, seconds):
                yield
        except TimeoutError as error:
            message = f"{self.what}: the answer was not complete after {seconds:g} seconds"
            raise SourceStalledError(message) from error

    def abort(self) -> None:
        """Make a read that waits in another thread fail. Idempotent, never raises."""
        end_line(self._response)

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it. Idempotent."""
        if self._response.closed:
            self._response.release_conn()
        else:
            self._response.close()
