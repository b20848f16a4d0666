"""``cas`` in a process whose recovery stands still between the first leftover and the second.

It stands there until it is told to stop, or killed, and never goes on.
"""

__all__ = ["STANDS", "VOLUMES"]

import os
import sys
import threading
from pathlib import Path

from cas.cli.main import main
from cas.fsops.effects import Effect, observed
from cas.model.cancellation import current_operation

STANDS = "HELD_RECOVERY_STANDS"
"""The variable of the environment with the path of a file that is made when it stands."""
VOLUMES = "HELD_RECOVERY_VOLUMES"
"""The one with the directory of the leftovers."""

_SUFFIXES = (".preparing", ".removing")


class _Hold:
    def __init__(self, volumes: Path, stands: Path) -> None:
        self._volumes, self._stands = volumes, stands
        self._begun: set[str] = set()

    def heed(self, _kind: Effect, path: str) -> None:
        """Stand still before the first change to the second leftover."""
        if not Path(path).is_relative_to(self._volumes):
            return
        parts = Path(path).relative_to(self._volumes).parts
        self._begun |= {part for part in parts[:1] if part.endswith(_SUFFIXES)}
        if len(self._begun) > 1:
            self._stand()

    def _stand(self) -> None:
        operation = current_operation()
        assert operation is not None, "a recovery of the service can be stopped"
        self._stands.touch()
        operation.wait(threading.TIMEOUT_MAX)
        operation.check()


if __name__ == "__main__":
    hold = _Hold(Path(os.environ[VOLUMES]), Path(os.environ[STANDS]))
    with observed(hold.heed):
        sys.exit(main())
