"""A process that ingests, to be killed: run as a module by crash tests.

Arguments: socket, persist directory, namespace, way, digest or ``-``, ``move`` or ``copy``, the
number of the effect or chunk before which it kills itself (``-1`` for never), and the files. It
prints the digest of each file when it is durable.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from cas.fsops.effects import observed
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.limits import Limits
from cas.model.settings import Settings
from cas.store.content.ingest import Ingest, Way
from cas.store.content.sources import FileSource
from cas.store.leasing import Leasing
from tests.support.daemon import connect
from tests.support.stores import backing_for


class Countdown:
    """Kills this process at the given step; a step is an effect on disk or a chunk of progress."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self, *_: object) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        pass

    def advance(self, action: str, item: str, amount: int) -> None:
        self.step()

    def finish(self, action: str, item: str) -> None:
        pass


def main(arguments: list[str]) -> None:
    socket, persist, namespace, way, digest, how, steps, *files = arguments
    settings = Settings(
        persist=Path(persist),
        address=Path(socket),
        namespace=namespace,
        limits=replace(Limits(), min_free_bytes=0),
    )
    countdown = Countdown(int(steps))
    with connect(settings) as containerd:
        backing = backing_for(containerd, settings)
        ingest = Ingest(backing)
        with Leasing(backing).hold("test") as lease, observed(countdown.step):
            for file in files:
                result = ingest.ingest(
                    FileSource(Path(file)),
                    lease,
                    expected=None if digest == "-" else Digest.parse(digest),
                    labels={GC_ROOT: "test"},
                    move=how == "move",
                    way=Way(way),
                    progress=countdown,
                )
                ingest.settle()
                print(result.digest, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
