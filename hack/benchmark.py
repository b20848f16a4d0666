"""Measures cas and ctr side by side on one containerd: the rows, the runs, the table.

Every row does the same job with both tools, in turn (A B A B), on the same containerd and file
system, each run in a namespace of its own; the clock stops when the data is on disk (``sync -f``).
The median of the runs counts. Rows named ``library`` use the Python API inside one process, as a
service does, against one ``ctr`` process per call, which is the only way to use ctr; rows named
``service`` go through ``cas serve``.
"""

__all__ = ["main"]

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cas.model.volume_name import VolumeName
from hack.bench_disk_snapshots import disk_snapshots
from hack.bench_disks import disks
from hack.bench_pull import pulling
from hack.bench_service import latency, rate
from hack.bench_setting import (
    IMAGE,
    MIB,
    Bench,
    Row,
    forget_image,
    image_archive,
    new_name,
    run,
    wipe,
)
from hack.bench_snapshot import snapshots

_START = (
    "each call of cas starts Python and loads gRPC, 0.2 s of CPU; a process that stays, with the "
    "library or behind `cas serve`, pays that once"
)
_VOLUME = "a lease, and the sync of the directory of the volume, which ctr does without"
_LIST = f"{_START}; the rest are 10 microseconds of Python per record"
_PRUNE = (
    "each pin is a label of its own, and dropping it a transaction of containerd's database, as is "
    "each removal by ctr; the look at the whole store before and after, which spares what is "
    "referred to, comes on top; pins that share a record would go in one transaction"
)


def large_blob(bench: Bench) -> Iterator[Row]:
    """One blob of 1 GiB."""
    size = 1024 // bench.scale * MIB
    source = bench.root / "large"
    with source.open("wb") as stream:
        for _ in range(size // MIB):
            stream.write(os.urandom(MIB))
    digest = run(["sha256sum", str(source)], bench.environment)[:64]
    row = Row(f"ingest one blob of {size // MIB} MiB", "s")
    moved = Row(f"ingest one blob of {size // MIB} MiB with --move", "s")
    for _ in range(bench.runs):
        theirs, ours = bench.namespace(), bench.namespace()

        def by_ctr(namespace: str = theirs) -> None:
            with source.open("rb") as stream:
                subprocess.run(
                    [
                        "ctr", "-n", namespace, "content", "ingest",
                        "--expected-digest", f"sha256:{digest}",
                        "--expected-size", str(size), "bench",
                    ],
                    stdin=stream, env=bench.environment, check=True,
                )  # fmt: skip

        row.theirs.append(bench.timed(by_ctr))
        wipe(bench, theirs)
        row.ours.append(bench.timed(partial(bench.cas, "blob", "ingest", source, namespace=ours)))
        wipe(bench, ours)
        copy = bench.settings.persist / "moved"
        shutil.copyfile(source, copy)
        moved.ours.append(
            bench.timed(partial(bench.cas, "blob", "ingest", "--move", copy, namespace=ours))
        )
        moved.theirs.append(row.theirs[-1])
        wipe(bench, ours)
    source.unlink()
    yield row
    yield moved


def _small_files(directory: Path, count: int) -> list[Path]:
    directory.mkdir()
    paths = [directory / str(number) for number in range(count)]
    for path in paths:
        path.write_bytes(os.urandom(4096))
    return paths


def small_blobs(bench: Bench) -> Iterator[Row]:
    """2,000 blobs of 4 KiB; ctr takes one blob per process."""
    count = 2000 // bench.scale
    directory = bench.root / "small"
    paths = _small_files(directory, count)
    digests = {path: run(["sha256sum", str(path)], bench.environment)[:64] for path in paths}
    row = Row(f"ingest {count} blobs of 4 KiB", "s")
    theirs, ours = bench.namespace(), bench.namespace()

    def by_ctr() -> None:
        for path, digest in digests.items():
            with path.open("rb") as stream:
                subprocess.run(
                    [
                        "ctr", "-n", theirs, "content", "ingest",
                        "--expected-digest", f"sha256:{digest}",
                        "--expected-size", "4096", path.name,
                    ],
                    stdin=stream, env=bench.environment, check=True,
                )  # fmt: skip

    row.theirs.append(bench.timed(by_ctr))
    row.ours.append(bench.timed(lambda: bench.cas("blob", "ingest", *paths, namespace=ours)))
    shutil.rmtree(directory)
    wipe(bench, theirs)
    wipe(bench, ours)
    yield row


def image_import(bench: Bench) -> Iterator[Row]:
    """Import of a real image with unpacking of all its layers."""
    archive = image_archive(bench)
    size = archive.stat().st_size // MIB
    row = Row("", "s")
    bare = Row(f"import an image of {size} MiB, not unpacked", "s")
    for _ in range(bench.runs):
        theirs, ours = bench.namespace(), bench.namespace()
        row.theirs.append(
            bench.timed(partial(bench.ctr, "images", "import", archive, namespace=theirs))
        )
        forget_image(bench, theirs)

        volume = new_name()

        def by_cas(namespace: str = ours, name: str = volume) -> None:
            bench.cas("image", "import", archive, namespace=namespace)
            bench.cas("volume", "prepare", name, "--image", IMAGE, namespace=namespace)

        row.ours.append(bench.timed(by_cas))
        usage = json.loads(bench.cas("volume", "usage", volume, "--json", namespace=ours))
        unpacked = usage["shared_bytes"] // MIB
        row.name = f"import and unpack an image of {size} MiB ({unpacked} MiB unpacked)"
        forget_image(bench, ours)
        bare.theirs.append(
            bench.timed(
                partial(bench.ctr, "images", "import", "--no-unpack", archive, namespace=theirs)
            )
        )
        forget_image(bench, theirs)
        bare.ours.append(
            bench.timed(partial(bench.cas, "image", "import", archive, namespace=ours))
        )
        forget_image(bench, ours)
    yield row
    yield bare


def volumes(bench: Bench) -> Iterator[Row]:
    """The second to fiftieth volume of an image, prepared and mounted."""
    archive = image_archive(bench)
    namespace = bench.namespace()
    mounts = bench.root / "mounts"
    mounts.mkdir()
    row = Row("volume 2 to 50 of an image, library", "s", note=_VOLUME)
    command = Row("volume 2 to 50 of an image, command", "s", note=_START)
    with bench.open(namespace) as case:
        case.images.import_archive(archive)
        case.volumes.prepare(VolumeName.parse(new_name()), IMAGE, activate=True)
        top = str(case.images.resolve(IMAGE).layers[-1].chain_id)

        def by_library() -> None:
            case.volumes.prepare(VolumeName.parse(new_name()), IMAGE, activate=True)

        def by_command() -> None:
            bench.cas(
                "volume", "prepare", new_name(), "--image", IMAGE, "--activate", namespace=namespace
            )

        for number in range(49):
            target = mounts / str(number)
            target.mkdir()
            row.theirs.append(_seconds(partial(_mount_by_ctr, bench, target, top, namespace)))
            row.ours.append(_seconds(by_library))
            if number % 5 == 0:
                command.ours.append(_seconds(by_command))
        command.theirs = row.theirs
        for target in mounts.iterdir():
            subprocess.run(["umount", target], check=True)
        for status in list(case.volumes.iter_volumes()):
            case.volumes.deactivate(status.name)
    forget_image(bench, namespace)
    yield row
    yield command


def _mount_by_ctr(bench: Bench, target: Path, parent: str, namespace: str) -> None:
    script = bench.ctr(
        "snapshots", "prepare", "--target", target, f"bench-{target.name}", parent,
        namespace=namespace,
    )  # fmt: skip
    subprocess.run(["sh", "-c", script], check=True)


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def listing(bench: Bench) -> Iterator[Row]:
    """A list of 20,000 blobs, and then their removal."""
    count = 20_000 // bench.scale
    namespace = bench.namespace()
    _fill(bench, namespace, count)
    for title, ours, theirs in (
        ("digests only", ("blob", "ls", "-q"), ("content", "ls", "-q")),
        ("table", ("blob", "ls"), ("content", "ls")),
    ):
        row = Row(f"list {count} blobs, {title}", "s", note=_LIST)
        for _ in range(bench.runs):
            row.theirs.append(bench.timed(partial(bench.ctr, *theirs, namespace=namespace)))
            row.ours.append(bench.timed(partial(bench.cas, *ours, namespace=namespace)))
        yield row
    wipe(bench, namespace)


def _fill(bench: Bench, namespace: str, count: int) -> None:
    with bench.open(namespace) as case:
        directory = bench.root / "fill"
        paths = _small_files(directory, count)
        for _ in case.blobs.ingest_many(iter(paths)):
            pass
    shutil.rmtree(directory)


def pruning(bench: Bench) -> Iterator[Row]:
    """10,000 blobs that nothing refers to, removed."""
    count = 10_000 // bench.scale
    row = Row(f"prune {count} blobs", "s", note=_PRUNE)
    theirs, ours = bench.namespace(), bench.namespace()
    for namespace in (theirs, ours):
        _fill(bench, namespace, count)
    digests = bench.ctr("content", "ls", "-q", namespace=theirs).split()

    def by_ctr() -> None:
        for start in range(0, len(digests), 1000):
            bench.ctr("content", "rm", *digests[start : start + 1000], namespace=theirs)
        bench.ctr("leases", "create", "--id", "collect", namespace=theirs)
        bench.ctr("leases", "rm", "--sync", "collect", namespace=theirs)

    row.theirs.append(bench.timed(by_ctr))
    row.ours.append(
        bench.timed(
            lambda: bench.cas("blob", "prune", "--force", "--filter", "pinned=true", namespace=ours)
        )
    )
    yield row


def start_up(bench: Bench) -> Iterator[Row]:
    """Start of the program."""
    row = Row("start-up: --help", "s", note="Python starts and loads the command line's library")
    for _ in range(10):
        start = time.monotonic()
        bench.cas("--help")
        row.ours.append(time.monotonic() - start)
        start = time.monotonic()
        bench.ctr("--help", namespace="x")
        row.theirs.append(time.monotonic() - start)
    yield row


def memory(bench: Bench) -> Iterator[Row]:
    """Peak resident memory of an ingest of 1 GiB."""
    size = 1024 // bench.scale
    source = bench.root / "memory"
    with source.open("wb") as stream:
        for _ in range(size):
            stream.write(os.urandom(MIB))
    row = Row(f"peak memory, ingest of {size} MiB", "MiB", note="Python with gRPC takes 45 MiB")
    theirs, ours = bench.namespace(), bench.namespace()
    with source.open("rb") as stream:
        row.theirs.append(
            _peak(["ctr", "-n", theirs, "content", "ingest", "bench"], bench, stream.fileno())
        )
    wipe(bench, theirs)
    row.ours.append(_peak(["cas", "-n", ours, "blob", "ingest", str(source)], bench, None))
    wipe(bench, ours)
    source.unlink()
    yield row


def _peak(command: list[str], bench: Bench, stdin: int | None) -> float:
    """Peak resident MiB, measured by time(1): a fork of this process would count with its own."""
    result = bench.root / "peak"
    done = subprocess.run(
        ["/usr/bin/time", "-f", "%M", "-o", result, *command],
        env=bench.environment,
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} failed with {done.returncode}")
    return int(result.read_text().split()[-1]) / 1024


ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "large-blob": large_blob,
    "small-blobs": small_blobs,
    "import": image_import,
    "pull": pulling,
    "volumes": volumes,
    "disks": disks,
    "snapshots": snapshots,
    "disk-snapshots": disk_snapshots,
    "list": listing,
    "prune": pruning,
    "start-up": start_up,
    "memory": memory,
    "latency": latency,
    "rate": rate,
}


def _machine() -> dict[str, object]:
    version = subprocess.run(
        ["containerd", "--version"], capture_output=True, text=True, check=True
    )
    start = time.process_time()
    subprocess.run(
        ["sha256sum", "/dev/stdin"], input=bytes(256 * MIB), stdout=subprocess.DEVNULL, check=True
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "containerd": version.stdout.split()[2],
        "sha256sum_mib_per_second": round(256 / max(used, 0.001)),
        "decompressors": [name for name in ("igzip", "unpigz") if shutil.which(name)],
        "seconds_here": round(time.process_time() - start, 3),
    }


def _print(rows: list[Row]) -> None:
    print(f"{'':60} {'cas':>10} {'ctr':>10} {'ctr/cas':>8}")
    for row in rows:
        document = row.as_document()
        theirs = "" if document["ctr"] is None else f"{document['ctr']:10.3f}"
        ratio = "" if document["ratio"] is None else f"{document['ratio']:8.2f}"
        print(f"{row.name:60} {document['cas']:10.3f} {theirs:>10} {ratio:>8} {row.unit}")
    for row in rows:
        if row.is_behind:
            print(f"behind in {row.name!r}: {row.note or 'not known why'}")


def main() -> None:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(prog="hack/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, one run")
    parser.add_argument("--output", type=Path, help="write JSON here as well")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.rows) - set(ROWS))
    if unknown:
        parser.error(f"no row is named {unknown[0]!r}; rows are {', '.join(ROWS)}")
    machine = _machine()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="cas-bench-") as root:
        bench = Bench(Path(root), quick=arguments.quick)
        with bench.daemon():
            for name in arguments.rows or ROWS:
                for row in ROWS[name](bench):
                    rows.append(row)
                    print(f"done: {row.name}", file=sys.stderr)
    print(json.dumps(machine))
    _print(rows)
    if arguments.output is not None:
        document = {"machine": machine, "rows": [row.as_document() for row in rows]}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
