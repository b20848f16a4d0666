"""Rows about disk volumes: against the best copying tools of the machine, not ctr."""

__all__ = ["disks"]

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cas.model.digest import Digest
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.volume_name import VolumeName
from hack.bench_setting import MIB, Bench, Row, new_name

_RUN_BYTES = 4 * MIB
_START = "each run of qemu-img is confined by a Python of its own, 0.1 s of CPU"


def disks(bench: Bench) -> Iterator[Row]:
    """A disk volume from a blob that is half zeros: copied, and converted to qcow2."""
    size = 1024 * MIB // bench.scale
    source = bench.root / "disk"
    with source.open("wb") as file:
        for _ in range(size // _RUN_BYTES // 2):
            file.write(os.urandom(_RUN_BYTES) + bytes(_RUN_BYTES))
    copied = Row(f"disk volume of {size // MIB} MiB, against cp --sparse=always", "s")
    converted = Row(f"the same in qcow2, against qemu-img convert of {size // MIB} MiB", "s")
    converted.note = _START
    namespace = bench.namespace()
    bench.cas("blob", "ingest", source, "--move", namespace=namespace)
    with bench.open(namespace) as case:
        [digest] = [blob.digest for blob in case.blobs.iter_blobs() if blob.size == size]
        blob = _file_of(bench, digest)
        copy = ["cp", "--sparse=always", "--reflink=auto", str(blob)]
        convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(blob)]
        for row, theirs, disk_format in (
            (copied, copy, DiskFormat.RAW),
            (converted, convert, DiskFormat.QCOW2),
        ):
            for _ in range(bench.runs):
                target = bench.root / "copy"
                row.theirs.append(bench.timed(partial(_run, [*theirs, str(target)])))
                target.unlink()
                name = VolumeName.parse(new_name())
                request = DiskRequest(str(digest), format=disk_format)
                row.ours.append(bench.timed(partial(case.volumes.prepare_disk, name, request)))
                case.volumes.remove(name)
        case.blobs.remove(digest, force=True)
        case.collect_garbage()
    yield copied
    yield converted


def _file_of(bench: Bench, digest: Digest) -> Path:
    content = bench.settings.layout.case / "io.containerd.content.v1.content"
    return content / "blobs" / "sha256" / digest.hex


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)
