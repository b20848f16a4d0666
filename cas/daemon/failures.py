"""What ends a thread of the service ends the service, and is its error."""

__all__ = ["Failures"]

import logging
import threading
from collections.abc import Callable

from cas.errors import CasError, InternalError

_log = logging.getLogger(__name__)


class Failures:
    """Runs what threads do; the first error that nobody expected is kept.

    Args:
        stop: Set at an error.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._first: CasError | None = None

    def run(self, work: Callable[[], object]) -> None:
        """Do the work of a thread; raises nothing."""
        try:
            work()
        except CasError as error:
            self._take(error)
        except Exception as error:  # noqa: BLE001 - the outermost border of a thread
            self._take(_defect(error))

    def raise_first(self) -> None:
        """Raise what was kept, if anything was.

        Raises:
            CasError: The first error.
            InternalError: It was none of the library's.
        """
        if self._first is not None:
            raise self._first

    def _take(self, error: CasError) -> None:
        if self._first is None:
            self._first = error
        self._stop.set()


def _defect(error: Exception) -> InternalError:
    name = threading.current_thread().name
    _log.debug("internal error thread=%s", name, exc_info=error)
    found = InternalError(
        f"internal error in thread {name}: {type(error).__name__}: {error}; this is a defect of "
        "cas, please report it with the service's log"
    )
    found.__cause__ = error
    return found
