"""Work for crash tests, and the judgement of what a crash left of it.

A scenario is a directory of archives and files, a list of jobs for the program
:mod:`tests.support.crash_worker`, and the knowledge of what must be in the store after each. Jobs
may be repeated: a finished one changes nothing.
"""

__all__ = ["Job", "Promises", "Scenario", "assert_whole", "build_scenario"]

import hashlib
import random
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from cas.app import Case
from cas.model.digest import Digest
from cas.model.volume_name import VolumeName
from tests.support.images import BuiltImage, Compression, build_image
from tests.support.layers import Entry, directory, file, opaque, symlink, whiteout
from tests.support.trees import Tree, merged_tree, read_tree

Job = list[str]
"""Operation and arguments, see the worker."""

_KIB = 1024
_LARGE = 2 * _KIB * _KIB
_FILES_PER_LAYER = 10


@dataclass
class Promises:
    """What the store said is done."""

    blobs: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)
    """Volumes in which a program has written and synced its file."""
    volumes: dict[str, bool | None] = field(default_factory=dict)
    """Whether a volume must be there; None while it was being made or removed."""

    def hear(self, kind: str, name: str) -> None:
        """Take in what the worker says next."""
        match kind:
            case "blob":
                self.blobs.add(name)
            case "image":
                self.images.add(name)
            case "data":
                self.data.add(name)
            case "preparing":
                self.volumes[name] = self.volumes.get(name) or None
            case "prepared":
                self.volumes[name] = True
            case "removing":
                self.volumes[name] = None
            case "removed":
                self.volumes[name] = False
            case _:
                raise AssertionError(kind)


@dataclass
class Scenario:
    """Jobs, and what they must lead to."""

    jobs: list[Job] = field(default_factory=list)
    blobs: dict[str, Path] = field(default_factory=dict)
    images: dict[str, BuiltImage] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)
    """By image."""
    volumes: dict[str, str] = field(default_factory=dict)
    """Volume to image."""
    data: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Volume to name and content of a file that a program wrote and synced in it."""

    @property
    def outcome(self) -> Promises:
        """What all jobs together lead to."""
        removed = {name for operation, name, *_ in self.jobs if operation == "remove"}
        return Promises(
            set(self.blobs),
            set(self.images),
            set(self.data),
            {name: name not in removed for name in self.volumes},
        )


def build_scenario(place: Path, source: random.Random) -> Scenario:
    """Make images and files below ``place`` and the list of jobs: every kind, both ways in."""
    scenario = Scenario()
    layers = [_layer(number, source) for number in range(5)]
    layers[2] += [whiteout("l0/gone"), opaque("replaced"), file("replaced/new", b"new\n")]
    first = _add_image(scenario, "first", layers[:4])
    second = _add_image(scenario, "second", [*layers[:2], layers[4]])
    names = [_volume_name(source) for _ in range(3)]
    many = [_blob(scenario, place, source, 20 * _KIB) for _ in range(8)]
    many += [_blob(scenario, place, source, _LARGE // 2) for _ in range(2)]
    seeded = _blob(scenario, place, source, _LARGE)
    streamed = _blob(scenario, place, source, _LARGE)
    small = _blob(scenario, place, source, 5 * _KIB)
    scenario.jobs = [
        ["import", str(first.write_oci_tar(place / "first.tar"))],
        ["ingest", "", small],
        ["prepare", names[0], first.name],
        ["ingest", "seed", seeded],
        ["import", str(second.write_oci_tar(place / "second", compression=Compression.GZIP))],
        ["ingest", "stream", streamed],
        ["prepare", names[1], second.name],
        ["ingest-many", *many],
        ["prepare", names[2], first.name],
        ["remove", names[2]],
        # Last, since unmounting syncs the whole file system.
        ["write", names[0], "written", "by a program in the volume\n"],
    ]
    scenario.volumes = {names[0]: first.name, names[1]: second.name, names[2]: first.name}
    scenario.data = {names[0]: ("written", b"by a program in the volume\n")}
    return scenario


def assert_whole(case: Case, scenario: Scenario, promises: Promises) -> None:
    """What was promised is there, to the last byte; volumes are inactive before and after.

    A volume that was being made or removed is there whole or not at all.
    """
    for digest in promises.blobs:
        _assert_blob(case, Digest.parse(digest), scenario.blobs[digest].read_bytes())
    for name in promises.images:
        _assert_image(case, scenario.images[name])
    present = {str(status.name) for status in case.volumes.iter_volumes()}
    for name, wanted in promises.volumes.items():
        assert wanted in {None, name in present}, f"volume {name} is there: {name in present}"
        if name in present:
            _assert_volume(case, scenario, name, written=name in promises.data)


def _assert_blob(case: Case, digest: Digest, content: bytes) -> None:
    assert case.blobs.exists(digest), f"acknowledged blob {digest} is missing"
    assert b"".join(case.blobs.read(digest)) == content, f"acknowledged blob {digest} is damaged"


def _assert_image(case: Case, image: BuiltImage) -> None:
    assert str(case.images.get(image.name).target.digest) == image.digest
    case.images.export(image.name, _Sink())
    for digest, content in image.blobs.items():
        _assert_blob(case, Digest.parse(digest), content)


def _assert_volume(case: Case, scenario: Scenario, name: str, *, written: bool) -> None:
    expected = dict(scenario.trees[scenario.volumes[name]])
    volume = VolumeName.parse(name)
    status = case.volumes.activate(volume)
    try:
        found = read_tree(status.rootfs)
    finally:
        case.volumes.deactivate(volume)
    if name in scenario.data:
        path, content = scenario.data[name]
        value = found.pop(path, None)
        wanted = ("file", 0o644, hashlib.sha256(content).hexdigest())
        assert not written or value == wanted, f"data of volume {name} is {value}"
    differing = sorted(
        path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)
    )
    assert not differing, f"volume {name} differs from its image in {differing}"


class _Sink:
    """Takes an exported archive; the export itself verifies what it reads."""

    def write(self, data: bytes, /) -> int:
        """Forget it."""
        return len(data)

    def flush(self) -> None:
        """Nothing is kept."""


def _layer(number: int, source: random.Random) -> list[Entry]:
    """Files that only this layer has, of sizes from none to some hundred blocks."""
    top = f"l{number}"
    sizes = [0, 1, 150 * _KIB, *(source.randrange(1, 30 * _KIB) for _ in range(_FILES_PER_LAYER))]
    return [
        directory(top),
        *(file(f"{top}/f{index}", source.randbytes(size)) for index, size in enumerate(sizes)),
        file(f"{top}/gone", b"hidden by a higher layer of the first image\n"),
        symlink(f"{top}/link", "f1"),
        directory("replaced"),
        file(f"replaced/old-{number}", b"hidden by a higher layer of the first image\n"),
    ]


def _add_image(scenario: Scenario, name: str, layers: list[list[Entry]]) -> BuiltImage:
    kinds = [Compression.GZIP, Compression.ZSTD, Compression.NONE, Compression.GZIP]
    image = build_image(
        layers, name=f"example.com/crash/{name}:1.0", compression=kinds[: len(layers)]
    )
    scenario.images[image.name] = image
    scenario.trees[image.name] = merged_tree(layers)
    return image


def _blob(scenario: Scenario, place: Path, source: random.Random, size: int) -> str:
    content = source.randbytes(size)
    digest = str(Digest.of(content))
    path = place / digest.removeprefix("sha256:")
    path.write_bytes(content)
    scenario.blobs[digest] = path
    return str(path)


def _volume_name(source: random.Random) -> str:
    return f"{uuid.UUID(int=source.getrandbits(128), version=4)}#0"
