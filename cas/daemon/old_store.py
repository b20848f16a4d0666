"""A containerd on the store of older software, for as long as that is merged."""

__all__ = ["opened_old_store"]

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.containerd.place import Place
from cas.containerd.root_directory import has_database
from cas.daemon.orphan import end_orphan, supervised_environment
from cas.daemon.supervision import tell_log_line
from cas.errors import CasError, StoreMetadataLostError
from cas.fsops import processes
from cas.fsops.trees import remove_tree
from cas.model.settings import Settings

_log = logging.getLogger(__name__)


@contextmanager
def opened_old_store(settings: Settings, root: Path) -> Iterator[Containerd]:
    """Run a containerd on an old root as long as the context lasts.

    One that a killed process has left there is ended first. What it needs to run goes with it.

    Args:
        settings: Which program, namespace and snapshotter.
        root: containerd's root; nothing in it is collected.

    Raises:
        StoreMetadataLostError: It has no database; none is made.
        InUseError: Another containerd runs on it.
        ContainerdMissingError: There is no such program.
        UnavailableError: It does not start, or does not answer.
        SocketPathError: The path of its socket is too long.
        StorageError: Its directories cannot be made.
    """
    end_orphan(root)
    if not has_database(root):
        raise StoreMetadataLostError(
            f"the old store {str(root)!r} has no metadata database, so nobody can tell what its "
            "snapshots are; only its blobs are of use",
            path=root,
        )
    place = Place.of_old_store(settings, root)
    environment = supervised_environment(os.environ, processes.current(), root)
    with (
        _run_directory(place.run),
        Daemon(settings, place=place, log=tell_log_line, environment=environment),
        Containerd.connect(
            place.socket,
            namespace=settings.namespace,
            snapshotter=settings.snapshotter,
            wait_seconds=settings.wait_seconds,
        ) as containerd,
    ):
        yield containerd


@contextmanager
def _run_directory(directory: Path) -> Iterator[None]:
    """Remove a containerd's state, sockets and configuration when it has ended."""
    try:
        yield
    finally:
        try:
            remove_tree(directory)
        except CasError as error:
            _log.warning("left of an old store's containerd path=%s error=%s", directory, error)
