"""One operation on volumes in a process of its own, which may kill itself at a chosen step.

``python -m tests.support.volume_worker PERSIST SOCKET NAMESPACE OPERATION ARGUMENT... [--die K]``

With ``--die K`` the process kills itself right before its K-th step: a change of the file system
or a call that changes something in containerd. Every step is printed, so that a test sees where
it ended; without a kill the last line is ``done``.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cas.fsops.effects import observed
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from tests.support.daemon import connect
from tests.support.volumes import Recorder, Store, open_store

_READS = ("info", "stat", "get", "read", "iter_", "usage", "mounts", "labels")


class Steps:
    """Counts steps and ends the process before the one it was told."""

    def __init__(self, last: int | None) -> None:
        self._left = last

    def __call__(self, what: str) -> None:
        if self._left is None:
            return
        print(what, flush=True)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


class _Announcing:
    """Passes every call on to the adapter and announces those that change something."""

    def __init__(self, target: object, name: str, announce: Callable[[str], None]) -> None:
        self._target, self._name, self._announce = target, name, announce

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._target, method)
        if method.startswith(_READS):
            return found

        def call(*arguments: object, **options: object) -> object:
            self._announce(f"{self._name}.{method}")
            return found(*arguments, **options)

        return call


def _watched(backing: Backing, steps: Steps) -> Backing:
    parts = {
        name: _Announcing(getattr(backing, name), name, steps)
        for name in ("content", "images", "leases", "snapshots", "diff")
    }
    return replace(backing, **parts)  # type: ignore[arg-type]


def _run(store: Store, operation: str, arguments: list[str]) -> None:
    match operation, arguments:
        case "unpack", [reference]:
            progress = Recorder()
            store.unpack_image(reference, progress=progress)
            for item in progress.started:
                print(item)
        case "prepare", [name, reference]:
            store.volumes.prepare(VolumeName.parse(name), reference)
        case "prepare-active", [name, reference]:
            store.volumes.prepare(VolumeName.parse(name), reference, activate=True)
        case "activate", [name]:
            store.volumes.activate(VolumeName.parse(name))
        case "deactivate", [name]:
            store.volumes.deactivate(VolumeName.parse(name))
        case "remove", [name]:
            store.volumes.remove(VolumeName.parse(name))
        case _:
            raise SystemExit(f"unknown operation {operation} {arguments}")


def main(arguments: list[str]) -> None:
    """Do one operation."""
    last = None
    if "--die" in arguments:
        position = arguments.index("--die")
        last = int(arguments[position + 1])
        del arguments[position : position + 2]
    persist, socket, namespace, operation, *rest = arguments
    settings = Settings(
        persist=Path(persist), address=Path(socket), namespace=namespace, wait_seconds=30
    )
    steps = Steps(last)
    with connect(settings) as containerd:
        store = open_store(containerd, settings, adapt=lambda backing: _watched(backing, steps))
        with observed(lambda effect, path: steps(f"{effect} {path}")):
            _run(store, operation, rest)
        if last is not None:
            print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
