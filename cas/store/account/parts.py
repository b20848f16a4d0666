"""Which directories the account is made of, and whose they are; no two overlap."""

__all__ = ["Part", "content_root", "parts"]

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cas.fsops.translation import translated
from cas.store.backing import Backing

_METADATA = "io.containerd.metadata.v1.bolt"
_SNAPSHOTTER = "io.containerd.snapshotter.v1."
_SNAPSHOTS = "snapshots"
_STAGE_TO_BLOBS = 2
"""``<content root>/blobs/sha256``."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file or tree with one owner.

    Args:
        owner: ``store``, ``volumes``, ``downloader``, ``verifier`` or ``others``.
        name: What it is to the owner.
        path: Exists at the time of the look.
    """

    owner: str
    name: str
    path: Path


def content_root(backing: Backing) -> Path | None:
    """containerd's content directory where this process reaches it."""
    blobs = backing.blobs_directory
    return None if blobs is None else blobs.parents[_STAGE_TO_BLOBS - 1]


def parts(backing: Backing) -> Iterator[Part]:
    """Stream all parts below the persist directory, and the content of a containerd elsewhere.

    The few directories above the parts are left out: a block each.

    Raises:
        StorageError: A directory cannot be read.
    """
    layout = backing.layout
    owned = {
        layout.volumes: Part("volumes", "files", layout.volumes),
        layout.downloader: Part("downloader", "files", layout.downloader),
        layout.verifier: Part("verifier", "files", layout.verifier),
        layout.clear_volumes: Part("volumes", "files in clear", layout.clear_volumes),
    }
    opened = {layout.vault, layout.clear_volumes.parent}
    for path in _entries(layout.persist):
        if path not in opened:
            yield Part("others", path.name, path)
            continue
        for inner in _entries(path):
            if inner != layout.case:
                name = f"{path.name}/{inner.name}"
                yield owned.get(inner, Part("others", name, inner))
    yield from _root_parts(backing)
    content = content_root(backing)
    if content is not None and not content.is_relative_to(layout.case):
        yield from _content_parts(content)


def _root_parts(backing: Backing) -> Iterator[Part]:
    layout = backing.layout
    content = content_root(backing)
    for path in _entries(layout.case):
        if path == content:
            yield from _content_parts(path)
        elif path.name == _METADATA:
            yield Part("store", "databases", path)
        elif path.name.startswith(_SNAPSHOTTER):
            yield from _snapshotter_parts(path)
        elif path == layout.stage.parent:
            yield from _own_parts(backing)
        else:
            yield Part("store", "other files of containerd", path)


def _content_parts(root: Path) -> Iterator[Part]:
    names = {"blobs": "content", "ingest": "ingests"}
    for path in _entries(root):
        yield Part("store", names.get(path.name, "other files of containerd"), path)


def _snapshotter_parts(root: Path) -> Iterator[Part]:
    for path in _entries(root):
        yield Part("store", "snapshots" if path.name == _SNAPSHOTS else "databases", path)


def _own_parts(backing: Backing) -> Iterator[Part]:
    layout = backing.layout
    names = {
        layout.stage: "staged files",
        layout.quarantine: "quarantine",
        layout.reserve: "reserve",
    }
    for path in _entries(layout.stage.parent):
        yield Part("store", names.get(path, "own records"), path)


def _entries(directory: Path) -> list[Path]:
    with translated("list", directory):
        try:
            with os.scandir(directory) as entries:
                return sorted(Path(entry.path) for entry in entries)
        except FileNotFoundError:
            return []
