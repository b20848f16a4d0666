"""Services of many stores in a process of their own, whose log and locks are not the test's."""

__all__ = ["ServiceHost"]

import base64
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from cas.app import Case
from cas.model.settings import Settings
from tests.support.serving import server_of

_ROOT = Path(__file__).parents[2]


class ServiceHost:
    """A process that serves the stores it is told to; a context manager that ends it.

    Args:
        log: What it says.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.service_host"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @contextmanager
    def serving(self, settings: Settings) -> Iterator[None]:
        """Serve one store as long as the context lasts."""
        self._tell("open", settings)
        try:
            yield
        finally:
            if self._process.poll() is None:
                self._tell("close", settings)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def _tell(self, command: str, settings: Settings) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        message = base64.b64encode(pickle.dumps((command, settings))).decode()
        print(message, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer == "done\n", self.log.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:  # closes its stdin, which ends it
            pass


def _serve() -> None:
    served: dict[str, ExitStack] = {}
    for line in sys.stdin:
        command, settings = pickle.loads(base64.b64decode(line))
        if command == "open":
            with ExitStack() as stack:
                case = stack.enter_context(Case.open(settings))
                stack.enter_context(server_of(case, settings.service_socket))
                served[settings.namespace] = stack.pop_all()
        else:
            served.pop(settings.namespace).close()
        print("done", flush=True)
    for stack in served.values():
        stack.close()


if __name__ == "__main__":
    _serve()
