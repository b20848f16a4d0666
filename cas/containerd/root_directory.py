"""containerd's directories before it starts: made, private, and not another daemon's."""

__all__ = [
    "RootHolder",
    "find_root_holder",
    "has_database",
    "heal_identity",
    "knows_snapshot",
    "prepare_directories",
]

import logging
import mmap
import os
import re
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

from cas.containerd.place import Place
from cas.errors import StorageError

_logger = logging.getLogger(__name__)

_DATABASE = Path("io.containerd.metadata.v1.bolt", "meta.db")
_IDENTITY = Path("io.containerd.grpc.v1.introspection", "uuid")
_LOOKS = 3

# 1: FLOCK  ADVISORY  WRITE 4711 fe:00:131085 0 EOF
_FLOCK = re.compile(
    r"\d+: FLOCK +ADVISORY +WRITE (?P<pid>\d+) (?P<major>[0-9a-f]+):(?P<minor>[0-9a-f]+):"
    r"(?P<inode>\d+) ",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class RootHolder:
    """A process that has the database of a root open and locked."""

    pid: int
    command: str


def prepare_directories(place: Place) -> None:
    """Make what containerd needs and close its root to everybody but root. Idempotent.

    Raises:
        StorageError: A directory cannot be made.
    """
    try:
        place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (place.run, place.socket.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Only this directory's mode protects the blobs: they are readable for everybody.
        if stat.S_IMODE(place.root.stat().st_mode) & 0o077:
            place.root.chmod(0o700)
            _logger.warning("containerd root was open to others path=%s", place.root)
    except OSError as error:
        raise StorageError(
            f"cannot make containerd's directories: {error}", path=error.filename
        ) from error


def heal_identity(case: Path) -> None:
    """Give the store a new identity if a power cut emptied the file of the old one.

    containerd writes the file without syncing it, and cannot introspect with an empty one.
    """
    path = case / _IDENTITY
    try:
        if path.stat().st_size == 0:
            path.write_text(str(uuid.uuid4()), encoding="ascii")
            _logger.warning("empty identity of containerd was replaced path=%s", path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot replace {path}: {error}", path=path) from error


def find_root_holder(case: Path) -> RootHolder | None:
    """Find the process that runs on this root; None if there is none, or none that we may see.

    A second containerd would wait for the first one's lock without an end and without a word.
    Source: proc_locks(5).
    """
    # The kernel gives the list in pages, and may pass over a lock when others go between two.
    looks = (_find_root_holder(case) for _ in range(_LOOKS))
    return next((holder for holder in looks if holder is not None), None)


def _find_root_holder(case: Path) -> RootHolder | None:
    try:
        status = (case / _DATABASE).stat()
    except FileNotFoundError:
        return None
    wanted = (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        match = _FLOCK.match(line)
        if match and wanted == (
            int(match["major"], 16),
            int(match["minor"], 16),
            int(match["inode"]),
        ):
            return RootHolder(int(match["pid"]), _command(int(match["pid"])))
    return None


def has_database(root: Path) -> bool:
    """Whether a containerd has ever kept anything under this root."""
    return (root / _DATABASE).is_file()


def knows_snapshot(root: Path, key: str) -> bool:
    """Whether the database of a root that no containerd runs on has the name of a snapshot.

    What was removed lately may be found all the same; what is not found is not there. It is the
    snapshotter's own name that is looked for, since containers have the key, too.
    Source: ``metadata/snapshot.go`` of containerd: ``<namespace>/<number>/<key>``.

    Raises:
        StorageError: It cannot be read.
    """
    wanted = re.compile(rb"/[0-9]+/" + re.escape(os.fsencode(key)) + rb"(?!#[0-9])")
    try:
        with (root / _DATABASE).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as database:
                return wanted.search(database) is not None
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"cannot read {root / _DATABASE}: {error}", path=root) from error


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process"
