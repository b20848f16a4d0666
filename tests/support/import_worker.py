"""A process that imports an archive, to be killed: run as a module by crash tests.

Arguments: socket, persist directory, namespace, number of the step before which it kills itself,
archive. A step is a change on disk or a call that changes something in containerd. It prints the
names of the images when they are promised.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from cas.fsops.effects import observed
from cas.model.settings import Settings
from cas.store.image.images import Images
from tests.support.daemon import connect
from tests.support.steps import announcing
from tests.support.stores import backing_for


class Countdown:
    """Kills this process before the given step, whichever thread takes it."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._guard = threading.Lock()

    def step(self, *_: object) -> None:
        with self._guard:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1


def main(arguments: list[str]) -> None:
    socket, persist, namespace, steps, archive = arguments
    settings = Settings(persist=Path(persist), address=Path(socket), namespace=namespace)
    countdown = Countdown(int(steps))
    with connect(settings) as connection:
        backing = backing_for(announcing(connection, countdown.step), settings)
        with observed(countdown.step):
            for record in Images(backing, workers=2).import_archive(Path(archive)):
                print(record.name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
