"""What every row of the benchmark needs: the containerd, the two tools, and cleaning up."""

__all__ = [
    "IMAGE",
    "MIB",
    "Bench",
    "Row",
    "forget_image",
    "image_archive",
    "new_name",
    "run",
    "wipe",
]

import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cas.app import Case
from cas.model.settings import Settings

MIB = 1024 * 1024
IMAGE = "docker.io/library/bench:1"
IMAGE_LAYERS = (
    "gzip:busybox-static,base-files,libc6,libgcc-s1,libstdc++6",
    "gzip:gcc-12,cpp-12",
    "zstd:python3.11-minimal,libpython3.11-minimal,libpython3.11-stdlib,perl-modules-5.36",
    "gzip:g++-12,libstdc++-12-dev",
    "zstd:libllvm14,llvm-14",
    "gzip:-usr/share/doc,-usr/share/man,clang-14,libclang-cpp14",
    "gzip:golang-1.19-go,golang-1.19-src",
    "zstd:libstd-rust-dev",
)


@dataclass
class Row:
    """One line of the table: seconds of each run; ``note`` says why it is behind, where it is."""

    name: str
    unit: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    note: str = ""
    more_is_better: bool = False

    def as_document(self) -> dict[str, object]:
        """The JSON form."""
        ours = statistics.median(self.ours)
        theirs = statistics.median(self.theirs) if self.theirs else None
        return {
            "name": self.name,
            "unit": self.unit,
            "cas": ours,
            "ctr": theirs,
            "ratio": None if theirs is None else self._ratio(ours, theirs),
            "cas_runs": self.ours,
            "ctr_runs": self.theirs,
            "note": self.note,
        }

    @property
    def is_behind(self) -> bool:
        """Whether ctr did better."""
        if not self.theirs:
            return False
        return self._ratio(statistics.median(self.ours), statistics.median(self.theirs)) < 1

    def _ratio(self, ours: float, theirs: float) -> float:
        return ours / theirs if self.more_is_better else theirs / ours


class Bench:
    """A containerd under a private directory, and the two ways to use it."""

    def __init__(self, root: Path, *, quick: bool) -> None:
        """Write the configuration; ``quick`` makes every row a tenth of its size."""
        self.root = root
        self.scale = 10 if quick else 1
        self.runs = 1 if quick else 3
        self.rows: list[Row] = []
        self.settings = Settings(
            persist=root / "p",
            owners=dict.fromkeys(("root", "downloader", "verifier", "volumemgr"), "root"),
        )
        config = root / "config.toml"
        owners = "".join(f'{role} = "root"\n' for role in ("downloader", "verifier", "volumemgr"))
        config.write_text(f'persist = "{self.settings.persist}"\n[owners]\n{owners}')
        # Installed programs are compiled once, whatever the shell says of its own.
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.environment = {
            **inherited,
            "CAS_CONFIG": str(config),
            "CONTAINERD_ADDRESS": str(self.settings.socket),
        }

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run the store's containerd."""
        self.cas("layout", "init")
        with (self.root / "log").open("wb") as log:
            process = subprocess.Popen(
                ["cas", "containerd", "run"], env=self.environment, stderr=log
            )
            try:
                with Case.open(self.settings):
                    pass
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()

    def namespace(self) -> str:
        """Name a namespace that nobody used."""
        return f"bench-{uuid.uuid4().hex[:8]}"

    def cas(self, *arguments: str | Path, namespace: str | None = None) -> str:
        """Run cas; gives its stdout."""
        environment = dict(self.environment)
        if namespace is not None:
            environment["CAS_NAMESPACE"] = namespace
        return run(["cas", *map(str, arguments)], environment)

    def ctr(self, *arguments: str | Path, namespace: str) -> str:
        """Run ctr; gives its stdout."""
        return run(["ctr", "-n", namespace, *map(str, arguments)], self.environment)

    def open(self, namespace: str) -> Case:
        """Open the library on a namespace."""
        settings = Settings(
            persist=self.settings.persist, namespace=namespace, owners=self.settings.owners
        )
        return Case.open(settings)

    def timed(self, work: Callable[[], object], *, warm: Path | None = None) -> float:
        """Seconds until ``work`` is done and on disk; programs were in memory before.

        Args:
            work: What is timed.
            warm: A file that is in memory as well; other data is not.
        """
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        if warm is not None:
            run(["sha256sum", str(warm)], self.environment)
        self.cas("version")
        self.ctr("version", namespace="default")
        start = time.monotonic()
        work()
        subprocess.run(["sync", "-f", self.settings.persist], check=True)
        return time.monotonic() - start


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a command; gives its stdout, or ends the benchmark if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(command)} failed with {done.returncode}: {done.stderr}")
    return done.stdout


def wipe(bench: Bench, namespace: str) -> None:
    """Empty a namespace, so that content shared between namespaces does not help the next run."""
    digests = bench.ctr("content", "ls", "-q", namespace=namespace).split()
    for start in range(0, len(digests), 500):
        bench.ctr("content", "rm", *digests[start : start + 500], namespace=namespace)
    with bench.open(namespace) as case:
        case.collect_garbage()


def image_archive(bench: Bench, *, zstd: bool = True) -> Path:
    """A real image of several hundred MB, made once.

    Args:
        bench: Keeps it.
        zstd: Whether some layers are compressed so, which older dockers cannot read.
    """
    archive = bench.root / f"image-{'zstd' if zstd else 'gzip'}.tar"
    if not archive.exists():
        layers: tuple[str, ...] = IMAGE_LAYERS[:2] if bench.scale > 1 else IMAGE_LAYERS
        if not zstd:
            layers = tuple(layer.replace("zstd:", "gzip:") for layer in layers)
        script = Path(__file__).with_name("package-image")
        subprocess.run([script, archive, IMAGE, *layers], check=True)
    return archive


def new_name() -> str:
    """A name of a volume that nobody used."""
    return f"{uuid.uuid4()}#0"


def forget_image(bench: Bench, namespace: str) -> None:
    """Remove volumes, images, snapshots and blobs of a namespace."""
    with bench.open(namespace) as case:
        for status in list(case.volumes.iter_volumes()):
            case.volumes.remove(status.name)
        for record in list(case.backing.images.iter_images()):
            case.backing.images.delete(record.name)
        for snapshot in reversed(_children_last(case)):
            case.backing.snapshots.remove(snapshot)
        case.collect_garbage()
    wipe(bench, namespace)


def _children_last(case: Case) -> list[str]:
    parents = {info.name: info.parent for info in case.backing.snapshots.iter_snapshots()}

    def depth(name: str) -> int:
        return 0 if not parents.get(name) else 1 + depth(parents[name])

    return sorted(parents, key=depth)
