"""One thing of each kind in the old places of a device, and what it becomes."""

__all__ = ["Moves", "contents", "fill_old_places", "holds"]

import hashlib
import os
from pathlib import Path

from tests.support.old_device import OldApp, OldDevice

Moves = dict[Path, Path]
"""Old and new places."""

Contents = dict[str, tuple[object, ...]]


def fill_old_places(device: OldDevice) -> Moves:
    """Put a disk, a clear one, a container, a store and downloads where older software had them."""
    app, clear = device.add(OldApp("a")), device.add(OldApp("clear"), clear=True)
    boxed = device.add(OldApp("boxed"))
    device.write_checkpoint()
    device.disk("foreign")  # stays, and keeps the directory
    layout = device.settings.layout
    download = _download(device, b"verified")
    return {
        device.disk(f"{app.old_name()}.raw", os.urandom(9000)): device.new(app),
        device.disk(f"{clear.old_name()}.raw", b"clear"): device.new(clear, clear=True),
        _container(device, boxed): device.new(boxed),
        _store(device): layout.case,
        download: layout.verified / download.parent.name,
    }


def _container(device: OldDevice, app: OldApp) -> Path:
    container = device.container(app.old_name())
    (container / "rootfs").rmdir()
    (container / "sub").mkdir()
    (container / "sub" / "file").write_text("x")
    (container / "sub" / "link").symlink_to("file")
    return container


def _store(device: OldDevice) -> Path:
    store = device.persist / "containerd"
    (store / "io.containerd.metadata.v1.bolt").mkdir(parents=True)
    (store / "io.containerd.metadata.v1.bolt" / "meta.db").write_text("metadata")
    return store


def _download(device: OldDevice, content: bytes) -> Path:
    """Put one into its place, and half of another."""
    states = device.persist / "downloads" / "appImg.obj"
    verified = states / "verified" / hashlib.sha256(content).hexdigest()
    for directory in (verified, states / "pending" / "part"):
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(content)
    return verified / "file"


def contents(place: Path) -> Contents:
    """Give time and content of everything in a place; those of a directory may become others."""
    found: Contents = {}
    for path in (place, *place.rglob("*")):
        key = str(path)[len(str(place)) :]
        if path.is_symlink():
            found[key] = (str(path.readlink()),)
        elif path.is_file():
            found[key] = (path.stat().st_mtime_ns, path.read_bytes())
        elif path.is_dir():
            found[key] = ()
    return found


def holds(place: Path, before: Contents) -> bool:
    """Whether what was in another place is in this one, with or without anything besides."""
    return contents(place).items() >= before.items()
