"""Rows about disk volumes: against the best copying tools of the machine, not ctr."""

__all__ = ["disks"]

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cas.app import Case
from cas.model.digest import Digest
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.volume_name import VolumeName
from hack.bench_setting import MIB, Bench, Row, new_name

_RUN_BYTES = 4 * MIB
_START = "each run of qemu-img is confined by a Python of its own, about 40 ms of CPU"


@dataclass(frozen=True, slots=True)
class _Job:
    """A disk volume, and the tool that makes the same file of a blob's."""

    what: str
    tool: Sequence[str]
    format: DiskFormat
    note: str = ""


_JOBS = (
    _Job("against cp --sparse=always", ("cp", "--sparse=always", "--reflink=auto"), DiskFormat.RAW),
    _Job(
        "against qemu-img convert to raw",
        ("qemu-img", "convert", "-f", "raw", "-O", "raw"),
        DiskFormat.RAW,
    ),
    _Job(
        "in qcow2, against qemu-img convert",
        ("qemu-img", "convert", "-f", "raw", "-O", "qcow2"),
        DiskFormat.QCOW2,
        _START,
    ),
)


def disks(bench: Bench) -> Iterator[Row]:
    """A disk volume from a blob that is half zeros: copied, and converted; cold and in memory."""
    pieces = 1024 * MIB // bench.scale // _RUN_BYTES // 2
    size = pieces * 2 * _RUN_BYTES
    source = bench.root / "disk"
    with source.open("wb") as file:
        for _ in range(pieces):
            file.write(os.urandom(_RUN_BYTES) + bytes(_RUN_BYTES))
    namespace = bench.namespace()
    bench.cas("blob", "ingest", source, "--move", namespace=namespace)
    with bench.open(namespace) as case:
        [digest] = [blob.digest for blob in case.blobs.iter_blobs() if blob.size == size]
        for job in _JOBS:
            for warm in (False, True):
                yield _row(bench, case, digest, job, size=size, warm=warm)
        case.blobs.remove(digest, force=True)
        case.collect_garbage()


def _row(bench: Bench, case: Case, digest: Digest, job: _Job, *, size: int, warm: bool) -> Row:
    state = "in memory" if warm else "on disk"
    row = Row(f"disk volume of {size // MIB} MiB {state}, {job.what}", "s", note=job.note)
    blob, target = _file_of(bench, digest), bench.root / "copy"
    for _ in range(bench.runs):
        command = [*job.tool, str(blob), str(target)]
        row.theirs.append(bench.timed(partial(_run, command), warm=blob if warm else None))
        target.unlink()
        name = VolumeName.parse(new_name())
        request = DiskRequest(str(digest), format=job.format)
        prepare = partial(case.volumes.prepare_disk, name, request)
        row.ours.append(bench.timed(prepare, warm=blob if warm else None))
        case.volumes.remove(name)
    return row


def _file_of(bench: Bench, digest: Digest) -> Path:
    content = bench.settings.layout.case / "io.containerd.content.v1.content"
    return content / "blobs" / "sha256" / digest.hex


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
