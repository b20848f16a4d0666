"""Prunes or repairs in a process of its own that kills itself before a chosen step."""

__all__ = ["main"]

import os
import signal
from dataclasses import replace
from pathlib import Path

from cas.app import Case
from cas.store.check.check import Check
from cas.store.check.repair import Repair
from tests.support.daemon import settings_for
from tests.support.steps import open_case


class _Fuse:
    """Once lit, burns down with each step."""

    def __init__(self) -> None:
        self._left: int | None = None

    def light(self, steps: int) -> None:
        """Begin to count."""
        self._left = steps

    def __call__(self, _: str) -> None:
        if self._left is None:
            return
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def main(persist: str, socket: str, namespace: str, operation: str, steps: int) -> None:
    """Do it, and die before step number ``steps`` if there are as many."""
    settings = replace(
        settings_for(Path(persist), "containerd"), address=Path(socket), namespace=namespace
    )
    fuse = _Fuse()
    with open_case(settings, fuse) as case:
        fuse.light(steps)
        {"prune": _prune, "repair": _repair}[operation](case)


def _prune(case: Case) -> None:
    case.prune.execute(case.prune.plan())


def _repair(case: Case) -> None:
    check = Check(case.backing, platform=case.images.platform, judge=case.volumes.iter_volumes)
    repair = Repair(
        case.backing, images=case.images, unpack=case.unpack, recover=case.volumes.recover
    )
    outcomes = list(repair.repair(check.run()))
    assert all(each.done or not each.finding.fixable for each in outcomes), outcomes
