"""Does jobs one after the other in a process of its own, to be killed at any moment.

``python -m tests.support.crash_worker PERSIST [--without-layer-sync]`` reads jobs as one JSON array
of arrays from stdin and prints a line ``step WHAT`` before each step, ``told KIND NAME`` when the
store said that something is done or when a volume is about to be changed, and ``done``.

``--without-layer-sync`` leaves out what makes layers durable, so that a test can show that it
would notice.
"""

import json
import os
import sys
from pathlib import Path

from cas.app import Case
from cas.fsops import kernel
from cas.model.labels import GC_ROOT
from cas.model.volume_name import VolumeName
from cas.store.content.ingest import Ingest, Way
from cas.store.content.sources import FileSource
from tests.support.crash_store import recover
from tests.support.daemon import settings_for
from tests.support.steps import open_case


def _say(line: str) -> None:
    # One write: the reader never sees half a line, and nothing waits in a buffer for a kill.
    os.write(1, line.encode() + b"\n")


def _ingest(case: Case, way: str, path: str) -> None:
    ingest = Ingest(case.backing)
    with case.leasing.hold("test") as lease:
        taken = ingest.ingest(
            FileSource(Path(path)), lease, labels={GC_ROOT: "test"}, way=Way(way) if way else None
        )
        ingest.settle()
    _say(f"told blob {taken.digest}")


def _write(case: Case, name: str, file: str, text: str) -> None:
    """Write into a volume as a program does that wants its data to last."""
    volume = VolumeName.parse(name)
    status = case.volumes.activate(volume)
    with (status.rootfs / file).open("wb") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())
    descriptor = os.open(status.rootfs, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    _say(f"told data {name}")
    case.volumes.deactivate(volume)


def _run(case: Case, job: list[str]) -> None:
    match job:
        case ["import", archive]:
            for record in case.images.import_archive(Path(archive)):
                _say(f"told image {record.name}")
        case ["prepare", name, image]:
            _say(f"told preparing {name}")
            case.volumes.prepare(VolumeName.parse(name), image)
            _say(f"told prepared {name}")
        case ["remove", name]:
            _say(f"told removing {name}")
            case.volumes.remove(VolumeName.parse(name))
            _say(f"told removed {name}")
        case ["write", name, file, text]:
            _write(case, name, file, text)
        case ["recover"]:
            recover(case)
        case ["ingest", way, path]:
            _ingest(case, way, path)
        case ["ingest-many", *paths]:
            for taken in case.blobs.ingest_many(map(Path, paths)):
                _say(f"told blob {taken.digest}")
        case _:
            raise SystemExit(f"unknown job {job}")


def main(arguments: list[str]) -> None:
    """Do the jobs."""
    persist, *options = arguments
    if "--without-layer-sync" in options:
        kernel.sync_file_system = lambda descriptor: None
    settings = settings_for(Path(persist), "containerd")
    with open_case(settings, lambda step: _say(f"step {step}")) as case:
        _say("ready")
        for job in json.load(sys.stdin):
            _run(case, job)
        _say("done")


if __name__ == "__main__":
    main(sys.argv[1:])
