"""Layer tars for tests, written from a list of entries: same entries, same bytes.

Everything that real layers contain can be said: files, directories, links, devices, whiteouts,
extended attributes, and, by leaving a parent out, directories that a tar only implies.
"""

__all__ = [
    "BuiltLayer",
    "Compression",
    "Entry",
    "build_layer",
    "character_device",
    "compress",
    "directory",
    "fifo",
    "file",
    "hard_link",
    "layer_tar",
    "opaque",
    "symlink",
    "whiteout",
]

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from backports import zstd

_MTIME = 1_700_000_000


class Compression(StrEnum):
    """How a layer or an archive is compressed."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "zstd"


@dataclass(frozen=True)
class Entry:
    """One member of a layer tar."""

    name: str
    type: bytes = tarfile.REGTYPE
    data: bytes = b""
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = _MTIME
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, str] = field(default_factory=dict)

    def member(self) -> tarfile.TarInfo:
        """The tar header."""
        member = tarfile.TarInfo(self.name)
        member.type = self.type
        member.size = len(self.data)
        member.linkname = self.target
        member.mode, member.uid, member.gid, member.mtime = (
            self.mode,
            self.uid,
            self.gid,
            self.mtime,
        )
        member.devmajor, member.devminor = self.device
        member.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in self.xattrs.items()}
        return member


def file(
    name: str,
    data: bytes = b"",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    xattrs: Mapping[str, str] | None = None,
) -> Entry:
    """A regular file."""
    return Entry(name, data=data, mode=mode, uid=uid, gid=gid, xattrs=xattrs or {})


def directory(name: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Entry:
    """A directory; leave it out and a file below it makes it an implied one."""
    return Entry(name, tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def symlink(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, tarfile.SYMTYPE, target=target, mode=0o777)


def hard_link(name: str, target: str) -> Entry:
    """A second name of ``target``, which is a member of this or of a lower layer."""
    return Entry(name, tarfile.LNKTYPE, target=target)


def character_device(name: str, major: int, minor: int, *, mode: int = 0o666) -> Entry:
    """A character device node."""
    return Entry(name, tarfile.CHRTYPE, mode=mode, device=(major, minor))


def fifo(name: str) -> Entry:
    """A named pipe."""
    return Entry(name, tarfile.FIFOTYPE)


def whiteout(name: str) -> Entry:
    """Deletes ``name`` of the layers below."""
    parent, _, base = name.rpartition("/")
    return Entry(f"{parent}/.wh.{base}" if parent else f".wh.{base}")


def opaque(name: str) -> Entry:
    """Hides everything that the layers below have in directory ``name``."""
    return Entry(f"{name}/.wh..wh..opq")


def layer_tar(entries: Iterable[Entry]) -> bytes:
    """Write a tar, deterministically."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            tar.addfile(entry.member(), io.BytesIO(entry.data))
    return buffer.getvalue()


def compress(data: bytes, compression: Compression) -> bytes:
    """Compress, deterministically."""
    match compression:
        case Compression.GZIP:
            return gzip.compress(data, 6, mtime=0)
        case Compression.ZSTD:
            return zstd.compress(data)
        case Compression.NONE:
            return data


@dataclass(frozen=True)
class BuiltLayer:
    """A layer: the uncompressed tar and the blob that an image refers to."""

    tar: bytes
    blob: bytes
    compression: Compression

    @property
    def digest(self) -> str:
        """Of the blob."""
        return f"sha256:{hashlib.sha256(self.blob).hexdigest()}"

    @property
    def diff_id(self) -> str:
        """Of the tar."""
        return f"sha256:{hashlib.sha256(self.tar).hexdigest()}"


def build_layer(
    entries: Iterable[Entry], compression: Compression = Compression.GZIP
) -> BuiltLayer:
    """Make a layer of ``entries``."""
    tar = layer_tar(entries)
    return BuiltLayer(tar, compress(tar, compression), compression)
