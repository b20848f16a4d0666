"""Copies of files and trees that are the same in every respect, and proof that they are.

Kept are content with its holes, owners, modes, times, extended attributes, hard links within the
tree, symbolic links, devices and pipes; inode flags as far as the target has them, which are no
part of the digest. Sockets are left out and reported: they are of no use to anybody but the process
that made them. No link is followed and no mount crossed; one descriptor
per side whatever the depth. Memory grows with the widest directories on one path and with the
number of inodes that have several names.
"""

__all__ = ["Replica", "content_digest", "replicate"]

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cas.fsops import kernel
from cas.fsops.attributes import copy_attributes, describe
from cas.fsops.cursor import Cursor
from cas.fsops.effects import Effect, effect
from cas.fsops.file_pass import FilePass
from cas.fsops.inode_flags import FlagCopy
from cas.fsops.translation import translated

_MAX_REPORTED_SOCKETS = 100

_Advance = Callable[[int], None]
"""Told how many bytes more were read, and with 0 of each entry; may raise to stop the work."""


@dataclass(frozen=True, slots=True)
class Replica:
    """What was read on the way.

    Args:
        digest: sha256 over content and attributes of everything, equal for equal trees. Of a
            file's content it covers the pages that are not zero.
        sockets: Paths below the top that were left out, at most a hundred.
        flags_lost: Paths whose inode flags or project the copy could not have, as many.
    """

    digest: str
    sockets: tuple[str, ...]
    flags_lost: tuple[str, ...]


def replicate(source: Path, target: Path, *, advance: _Advance) -> Replica:
    """Copy a file or tree to a name that is free, durably but for that name.

    After failure a part of it may be there, for the caller to remove.

    Args:
        source: What to copy.
        target: Its directory exists.
        advance: Told of progress.

    Raises:
        AlreadyExistsError: ``target`` exists.
        InUseError: Something is mounted in the source.
        SourceChangedError: A file of it was written to meanwhile.
        NoSpaceError: No room.
        DeniedError: The process may not do this.
        StorageError: Any other failed system call.
    """
    walk = _Walk(advance, target)
    with translated("copy", source):
        walk.run(source)
        walk.flags.finish()
    with translated("sync", target):
        descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            effect(Effect.FSYNC, target)
            kernel.sync_file_system(descriptor)
        finally:
            os.close(descriptor)
    return walk.result()


def content_digest(path: Path, *, advance: _Advance) -> str:
    """Give the digest that :func:`replicate` gives, of what is on the device.

    What is synced is read from the device again, and not from memory.

    Raises:
        InUseError: Something is mounted in it.
        SourceChangedError: A file of it was written to meanwhile.
        StorageError: A system call failed.
    """
    walk = _Walk(advance, None)
    with translated("read", path):
        walk.run(path)
    return walk.result().digest


class _Walk:
    """One pass over a source, hashing it, and copying it if there is a target."""

    def __init__(self, advance: _Advance, target: Path | None) -> None:
        self._advance = advance
        self._target = target
        self._hash = hashlib.sha256()
        self._links: dict[tuple[int, int], tuple[int, str]] = {}
        self._sockets: list[str] = []
        self.flags = FlagCopy()
        self._files = FilePass(advance)

    def result(self) -> Replica:
        return Replica(self._hash.hexdigest(), tuple(self._sockets), tuple(self.flags.lost))

    def run(self, source: Path) -> None:
        if stat.S_ISDIR(source.lstat().st_mode):
            self._walk_tree(source)
            return
        with ExitStack() as stack:
            near = stack.enter_context(_directory(source.parent))
            far = None
            if self._target is not None:
                far = stack.enter_context(_directory(self._target.parent))
            far_name = "" if self._target is None else self._target.name
            self._add_entry(near, source.name, far, far_name, "")

    def _walk_tree(self, source: Path) -> None:
        with ExitStack() as stack:
            near = stack.enter_context(Cursor(source))
            far = None
            if self._target is not None:
                effect(Effect.MKDIR, self._target)
                self._target.mkdir(mode=0o700)
                far = stack.enter_context(Cursor(self._target))
            pending = [self._enter(near, far, "")]
            while pending:
                if pending[-1]:
                    name = pending[-1].pop()
                    _descend(near, far, name)
                    pending.append(self._enter(near, far, name))
                    continue
                pending.pop()
                self._leave(near, far, ascend=bool(pending))

    def _enter(self, near: Cursor, far: Cursor | None, name: str) -> list[str]:
        """Do everything in a directory but its subdirectories, which are given, last first."""
        self._advance(0)
        self._tell(b"d", name, describe(near.fileno(), "", near.status()))
        directories = []
        with os.scandir(near.fileno()) as entries:
            listed = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in entries)
        for entry, is_directory in listed:
            if is_directory:
                directories.append(entry)
            else:
                descriptor = None if far is None else far.fileno()
                self._add_entry(near.fileno(), entry, descriptor, entry, near.path)
        return directories[::-1]

    def _leave(self, near: Cursor, far: Cursor | None, *, ascend: bool) -> None:
        self._tell(b"u", "", b"")
        if far is not None:  # not earlier: what is made in a directory changes its time
            effect(Effect.ACCESS, far.path)
            source, target = (near.fileno(), ""), (far.fileno(), "")
            copy_attributes(source, target)
            self.flags.copy(source, target, near.path, top=not ascend, linked=False)
        if ascend:
            near.ascend()
            if far is not None:
                far.ascend()

    def _add_entry(
        self, near: int, name: str, far: int | None, far_name: str, directory: str
    ) -> None:
        self._advance(0)
        with translated("copy", f"{directory}/{name}"):
            status = os.stat(name, dir_fd=near, follow_symlinks=False)
            if stat.S_ISSOCK(status.st_mode):
                if len(self._sockets) < _MAX_REPORTED_SOCKETS:
                    self._sockets.append(f"{directory}/{name}")
                return
            told = name if directory else ""
            known = self._links.get((status.st_dev, status.st_ino))
            if known is not None:
                self._tell(b"h", told, str(known[0]).encode())
                if far is not None:
                    effect(Effect.LINK, f"{directory}/{name}")
                    os.link(known[1], far_name, dst_dir_fd=far, follow_symlinks=False)
                return
            self._tell(b"e", told, describe(near, name, status))
            if far is not None:
                effect(Effect.WRITE_FILE, f"{directory}/{name}")
            self._add_content(near, name, far, far_name, status)
            if far is not None:
                copy_attributes((near, name), (far, far_name))
                if stat.S_ISREG(status.st_mode):
                    self.flags.copy(
                        (near, name),
                        (far, far_name),
                        f"{directory}/{name}",
                        top=not directory,
                        linked=status.st_nlink > 1,
                    )
            if status.st_nlink > 1:
                place = "" if far is None else os.readlink(f"/proc/self/fd/{far}")
                inode = (status.st_dev, status.st_ino)
                self._links[inode] = (len(self._links), f"{place}/{far_name}")

    def _add_content(
        self, near: int, name: str, far: int | None, far_name: str, status: os.stat_result
    ) -> None:
        if stat.S_ISREG(status.st_mode):
            self._hash.update(self._files.read(near, name, far, far_name))
        elif stat.S_ISLNK(status.st_mode):
            text = os.readlink(name, dir_fd=near)
            self._hash.update(os.fsencode(text))
            if far is not None:
                os.symlink(text, far_name, dir_fd=far)
        elif far is not None:
            os.mknod(far_name, status.st_mode, status.st_rdev, dir_fd=far)

    def _tell(self, kind: bytes, name: str, description: bytes) -> None:
        encoded = os.fsencode(name)
        self._hash.update(b"%s %d %d " % (kind, len(encoded), len(description)))
        self._hash.update(encoded + description)


def _descend(near: Cursor, far: Cursor | None, name: str) -> None:
    if far is not None:
        effect(Effect.MKDIR, f"{far.path}/{name}")
        os.mkdir(name, mode=0o700, dir_fd=far.fileno())
        far.descend(name)
    near.descend(name)


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
