"""Real containerds for tests: private ones, and the cleaning of namespaces."""

import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT
from cas.model.records import LeaseID
from cas.model.settings import Settings
from cas.store.directories import create_directories

_containerd_log = logging.getLogger("containerd")

WAIT_SECONDS = 120.0
"""Generous, since a loaded machine may be slow; nothing waits longer than it must."""


@contextmanager
def persist_directory() -> Iterator[Path]:
    """Give a directory with a short path on a real disk, and remove it with everything in it.

    /tmp may be a tmpfs, which overlay cannot use as a writable layer everywhere.
    """
    directory = Path(tempfile.mkdtemp(prefix="cas-", dir="/var/tmp"))
    try:
        yield directory
    finally:
        unmount_below(directory)
        shutil.rmtree(directory)


@contextmanager
def private_daemon(
    settings: Settings, *, environment: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """Make the layout and run a containerd; the test may stop, kill and start it as it likes."""
    create_directories(settings, repair=True)
    with Daemon(settings, log=_containerd_log.debug, environment=environment) as daemon:
        yield daemon


def settings_for(persist: Path, binary: str) -> Settings:
    """Give settings for a private containerd, with directories that root owns alone."""
    roles = ("root", "downloader", "verifier", "volumemgr")
    return Settings(
        persist=persist,
        containerd_binary=binary,
        wait_seconds=WAIT_SECONDS,
        owners=dict.fromkeys(roles, "root"),
    )


def connect(settings: Settings) -> Containerd:
    """Connect as the settings say."""
    return Containerd.connect(
        settings.socket,
        namespace=settings.namespace,
        snapshotter=settings.snapshotter,
        wait_seconds=settings.wait_seconds,
    )


def empty_namespace(containerd: Containerd) -> None:
    """Remove everything in the namespace, its files and its name included."""
    for image in containerd.images.iter_images():
        containerd.images.delete(image.name)
    for lease in containerd.leases.iter_leases():
        containerd.leases.delete(lease.id)
    for ingest in containerd.content.iter_ingests():
        containerd.content.abort(ingest.ref)
    for blob in list(containerd.content.iter_blobs()):
        containerd.content.delete(blob.digest)
    # Left to the collection: removal by hand refuses a snapshot whose child was collected once.
    for snapshot in list(containerd.snapshots.iter_snapshots([f'labels."{GC_ROOT}"'])):
        containerd.snapshots.update_labels(snapshot.name, {GC_ROOT: None})
    containerd.leases.collect_garbage()
    _collect_files(containerd)
    containerd.namespaces.delete(containerd.namespace)


def _collect_files(containerd: Containerd) -> None:
    """Have files removed that no record was ever made of: only a deletion makes containerd look.

    The next test would find them in its store, or take the store for one whose records are lost.
    """
    directory = containerd.blobs_directory
    if directory is None or not directory.is_dir() or not any(directory.iterdir()):
        return
    data = b"deleted at once"
    lease = containerd.leases.create(LeaseID("cleaning"), {}).id
    containerd.content.put("cleaning", lease, data, Digest.of(data), {})
    containerd.content.delete(Digest.of(data))
    containerd.leases.delete(lease, sync=True)


def empty_layout(settings: Settings) -> None:
    """Unmount and remove the volumes and the leftovers of one test."""
    layout = settings.layout
    unmount_below(settings.persist)
    for directory in (layout.volumes, layout.clear_volumes, layout.stage, layout.quarantine):
        _empty_directory(directory)
    layout.scrub_cursor.unlink(missing_ok=True)


def unmount_below(directory: Path) -> None:
    """Unmount everything below a directory, the last mounted first."""
    for mount_point in reversed(mounts_below(directory)):
        unmount(mount_point)


def unmount(path: Path) -> None:
    """Unmount what is mounted there; waits for those who still have it open. Idempotent."""
    deadline = time.monotonic() + WAIT_SECONDS
    while path in _mount_points():
        done = subprocess.run(["umount", path], capture_output=True, check=False)
        if done.returncode and time.monotonic() > deadline:
            raise AssertionError(done.stderr.decode())


def mounts_below(directory: Path) -> list[Path]:
    """Give the mount points below a directory, in order of mounting."""
    return [path for path in _mount_points() if directory in path.parents]


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return [Path(os.fsdecode(_unescaped(line.split(b" ")[4]))) for line in lines]


def _empty_directory(directory: Path) -> None:
    for path in directory.iterdir() if directory.exists() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _unescaped(text: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)
