"""How the service logs: a line per event, with the number of the call that it belongs to."""

__all__ = ["ServiceFormatter"]

import logging
from types import TracebackType

from cas.model.printable import printable
from cas.rpc.server.request_number import current_request

_ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class ServiceFormatter(logging.Formatter):
    """Adds ``request=17`` to what happens within a call; the service manager adds the time."""

    def __init__(self) -> None:
        super().__init__("cas: %(levelname)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the library's name)
        """Give the line, without a traceback that may follow."""
        number = current_request()
        line = super().formatMessage(record)
        # What is logged may quote callers and containerd; none of them may forge a line.
        return printable(line if number is None else f"{line} request={number}")

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 (the library's name)
        """Give the lines of a traceback, whose last one quotes as well."""
        return "\n".join(map(printable, super().formatException(ei).splitlines()))
