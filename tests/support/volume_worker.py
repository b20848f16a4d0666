"""One operation on volumes in a process of its own, which may kill itself at a chosen step.

``python -m tests.support.volume_worker PERSIST SOCKET NAMESPACE OPERATION ARGUMENT... [--die K]``

With ``--die K`` the process kills itself right before its K-th step: a change of the file system
or a call that changes something in containerd. A process that was not killed ends with 0.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cas.containerd.client import Containerd
from cas.fsops.effects import observed
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from tests.support.daemon import connect
from tests.support.steps import announcing
from tests.support.volumes import Recorder, Store, open_store


def _killer(last: int) -> Callable[[str], None]:
    left = last

    def announce(_: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    return announce


def _names(texts: list[str]) -> list[VolumeName]:
    return [VolumeName.parse(text) for text in texts]


def _run(store: Store, operation: str, arguments: list[str]) -> None:
    match operation, arguments:
        case "unpack", [reference]:
            progress = Recorder()
            store.unpack_image(reference, progress=progress)
            print("\n".join(progress.started))
        case "prepare" | "replace", [name, reference]:
            replaces = operation == "replace"
            store.volumes.prepare(VolumeName.parse(name), reference, replace=replaces)
        case "prepare-active", [name, reference]:
            store.volumes.prepare(VolumeName.parse(name), reference, activate=True)
        case "disk" | "replace-disk", [name, source, size, *disk_format]:
            wanted = DiskFormat(disk_format[0]) if disk_format else None
            request = DiskRequest(source, size=int(size), format=wanted)
            replaces = operation == "replace-disk"
            store.volumes.prepare_disk(VolumeName.parse(name), request, replace=replaces)
        case "remove", [name]:
            store.volumes.remove(VolumeName.parse(name))
        case "snapshot-create", [snapshot, *names]:
            store.volume_snapshots.create(_names(names), snapshot, quiesced=True)
        case "snapshot-rollback", [snapshot, *names]:
            store.volume_snapshots.roll_back(
                _names(names), snapshot, drop_later=True, quiesced=True
            )
        case "snapshot-rm", [snapshot, name]:
            store.volume_snapshots.remove(VolumeName.parse(name), snapshot, quiesced=True)
        case _:
            message = f"unknown operation {operation} {arguments}"
            raise SystemExit(message)


def _run_killed(
    containerd: Containerd, settings: Settings, last: int, operation: str, arguments: list[str]
) -> None:
    announce = _killer(last)
    store = open_store(announcing(containerd, announce), settings)
    with observed(lambda effect, path: announce(f"{effect} {path}")):
        _run(store, operation, arguments)


def main(arguments: list[str]) -> None:
    """Do one operation."""
    last = None
    if "--die" in arguments:
        position = arguments.index("--die")
        last = int(arguments[position + 1])
        arguments = arguments[:position] + arguments[position + 2 :]
    persist, socket, namespace, operation, *rest = arguments
    settings = replace(
        Settings(persist=Path(persist), namespace=namespace, wait_seconds=30), address=Path(socket)
    )
    with connect(settings) as containerd:
        if last is None:
            _run(open_store(containerd, settings), operation, rest)
        else:
            _run_killed(containerd, settings, last, operation, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
