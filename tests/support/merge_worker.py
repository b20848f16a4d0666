"""A whole upgrade in a process of its own, to which something happens at a chosen step.

A step is a change of the file system, or a call to containerd. What happens is its death, or that
somebody else fills the disk.
"""

__all__ = ["main"]

import os
import signal
from contextlib import suppress
from pathlib import Path

from cas.daemon.upgrade import upgrade
from cas.errors import CasError
from cas.fsops.effects import observed
from cas.model.progress import NO_PROGRESS
from cas.model.settings import Settings
from cas.upgrade.plan import PlanOptions
from tests.support.loopfs import LoopFileSystem
from tests.support.steps import AtStep, calls_announced


def main(settings: Settings, count: Path, step: int | None, full: LoopFileSystem | None) -> None:
    """Upgrade.

    Args:
        settings: Of the persist directory.
        count: Gets the number of steps at the end.
        step: Which; None for none.
        full: The disk to fill; None to die.
    """

    def act() -> None:
        if full is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            full.fill()

    acting = AtStep(act)
    acting.set(step)
    # What does not go on without room ends with an error.
    with (
        observed(lambda kind, path: acting(f"{kind} {path}")),
        calls_announced(acting),
        suppress(*() if full is None else (CasError,)),
    ):
        for _ in upgrade(settings, PlanOptions(), progress=NO_PROGRESS):
            pass
    count.write_text(str(acting.steps))
