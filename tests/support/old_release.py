"""A whole tree as an old release leaves it, and the judgement of what an upgrade made of it."""

__all__ = ["OldRelease"]

import hashlib
import json
import os
import stat
from pathlib import Path

from cas.upgrade.device import is_vacant
from tests.support.old_device import OldApp, OldDevice
from tests.support.old_store import OldContainer, make_old_store

State = tuple[object, ...]

_MIB = 1024 * 1024
_ADDED = {"/rootfs", "/snapshotid.txt", "/volume.json"}
"""What a container gets for its new life."""
_OF_STORE = (
    "/io.containerd.content.v1.content/blobs/sha256/",
    "/io.containerd.snapshotter.v1.overlayfs/snapshots/",
)
"""What a containerd that runs on a store leaves as it is."""
_OLD_PLACES = ("img", "runx", "containerd", "downloads", "vault/volumes")


class OldRelease:
    """The tree; in its old places when it was made.

    Args:
        device: Empty.
        binary: The containerd that makes its store.
    """

    def __init__(self, device: OldDevice, binary: str) -> None:
        self.device = device
        self._layout = device.settings.layout
        self.container: OldContainer = make_old_store(
            device, device.persist / "containerd", binary, app="in the store"
        )
        self.moves = {
            device.persist / "containerd": self._layout.case,
            self._prepared(self.container.key): device.new(self.container.app),
            **self._disks(),
            **self._containers(),
            **self._verified(),
        }
        self.left = self._foreign()
        self.discarded = self._unfinished()
        device.write_checkpoint(contained=True)
        self._before = {old: tree_state(old) for old in (*self.moves, *self.left)}
        self._others = {
            path: tree_state(path) for path in (device.persist / "checkpoint", self._latches)
        }
        self._files = _files(*(device.persist / place for place in _OLD_PLACES))

    def _disks(self) -> dict[Path, Path]:
        device = self.device
        purged = device.add(OldApp("purged", purge=2, drives=("same", None, "same")), generation=3)
        clear = device.add(OldApp("clear"), clear=True)
        latched = device.add(OldApp("latched", purge=1))
        upper = device.add(OldApp("upper"))
        device.latch(latched)
        self._stale = [device.disk(f"{purged.old_name(purge=1)}.qcow2", b"stale")]
        name = upper.old_name()
        disks = {
            device.disk(f"{purged.old_name(0)}.qcow2"): device.new(purged, 0, generation=3),
            device.disk(f"{purged.old_name(2)}.raw"): device.new(purged, 2, generation=3),
            device.disk(f"{clear.old_name()}.raw"): device.new(clear, clear=True),
            device.disk(f"{latched.old_name()}.vmdk"): device.new(latched),
            device.disk(f"{name[:64].upper()}{name[64:]}.RAW"): device.new(upper),
        }
        for number, path in enumerate(disks):
            _fill_disk(path, number)
        return disks

    def _containers(self) -> dict[Path, Path]:
        boxed = self.device.add(OldApp("boxed", purge=4))
        path = self.device.container(boxed.old_name())
        (path / "rootfs").rmdir()
        (path / "file").write_text("x")
        os.link(path / "file", path / "same")
        (path / "link").symlink_to("/nowhere")
        os.mknod(path / "whiteout", stat.S_IFCHR | 0o600, os.makedev(0, 0))
        os.mkfifo(path / "pipe")
        (path / "deep" / "deeper").mkdir(parents=True)
        _fill_disk(path / "deep" / "deeper" / "name\n\x1b[31m", 9)
        os.setxattr(path / "deep", "trusted.overlay.opaque", b"y")
        os.utime(path / "deep", ns=(5, 6))
        return {path: self.device.new(boxed)}

    def _verified(self) -> dict[Path, Path]:
        moves = {}
        for kind, content in (("appImg.obj", b"app"), ("baseOs.obj", b"base")):
            digest = hashlib.sha256(content).hexdigest()
            path = self.device.persist / "downloads" / kind / "verified" / digest.upper() / "file"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            moves[path] = self._layout.verified / digest
        return moves

    def _unfinished(self) -> list[Path]:
        found = []
        for state in ("pending", "verifier"):
            directory = self.device.persist / "downloads/appImg.obj" / state / "part"
            directory.mkdir(parents=True)
            (directory / "data").write_text("half")
            found.append(directory)
        return found

    def _foreign(self) -> list[Path]:
        """Put things there that are nobody's."""
        device, app = self.device, OldApp("boxed")
        wrong = device.persist / "downloads/appImg.obj/verified" / ("ab" * 32) / "file"
        certificate = device.persist / "downloads/cert.obj/pending-certs/file"
        for path in (wrong, certificate):
            path.parent.mkdir(parents=True)
            path.write_text("other content")
            os.chown(path, 1234, 4321)
        directory = device.persist / "img" / f"{app.old_name()}.dir"
        directory.mkdir()
        (directory / "file").write_text("x")
        link = device.persist / "img" / f"{app.old_name()}.link"
        link.symlink_to("/etc/passwd")
        plain = self._prepared(OldApp("plain").old_name())
        plain.write_text("a file where a directory belongs")
        suffixed = self._layout.volumes / f"{device.new(OldApp('shipped')).name}.qcow2"
        suffixed.parent.mkdir(parents=True)
        suffixed.write_text("of a release of EVE")
        unknown = [
            f"{OldApp('unknown').old_name()}.raw",
            f"{app.old_name()}.raw.tmp",
            "lost",
            "a\nb",
        ]
        strangers = [device.disk(name) for name in unknown]
        return [
            wrong,
            certificate.parent,
            directory,
            link,
            plain,
            suffixed,
            *strangers,
            *self._stale,
        ]

    def _prepared(self, name: str) -> Path:
        return self.device.persist / "runx/pods/prepared" / name

    @property
    def _latches(self) -> Path:
        return self.device.persist / "status"

    def assert_nothing_is_lost(self) -> None:
        """Everything that is to be kept is whole in one of its places."""
        for old, new in self.moves.items():
            if self._is_download(old):
                places = (place for place in (self._blob(new), new, old) if place.exists())
                assert _content(tree_state(next(places))[""]) == _content(self._before[old][""])
            elif os.path.lexists(new) and not is_vacant(new):
                self._assert_same(old, new)
            else:
                assert _kept(tree_state(old)).items() >= _kept(self._before[old]).items(), old
        self._assert_rest_is_untouched()

    def assert_done(self) -> None:
        """Everything is in its new place, as it was; nothing else is left; all is accounted for."""
        for old, new in self.moves.items():
            assert not os.path.lexists(old), old
            if self._is_download(old):
                assert not new.exists()
                blob = tree_state(self._blob(new))[""]
                assert _content(blob) == _content(self._before[old][""])
            else:
                self._assert_same(old, new)
        assert not [path for path in self.discarded if path.exists()]
        self._assert_rest_is_untouched()
        self._assert_nothing_else_is_there()
        self._assert_report_accounts_for_every_file()

    def _assert_same(self, old: Path, new: Path) -> None:
        now, before = tree_state(new), dict(self._before[old])
        if new == self._layout.case:
            before = {path: state for path, state in before.items() if path.startswith(_OF_STORE)}
            assert before.items() <= now.items()
            return
        added = set(now) - set(before)
        if added:  # and then its own time changes
            assert added <= _ADDED, added
            del now[""], before[""]
        for path, state in before.items():
            assert now[path] == state, (new, path)

    def _is_download(self, old: Path) -> bool:
        """Which becomes a blob in the end."""
        return old.is_relative_to(self.device.persist / "downloads")

    def _blob(self, verified: Path) -> Path:
        return self._layout.case / "io.containerd.content.v1.content/blobs/sha256" / verified.name

    def _assert_rest_is_untouched(self) -> None:
        for path in self.left:
            assert tree_state(path) == self._before[path], path
        for path, state in self._others.items():
            assert tree_state(path) == state, path

    def _assert_nothing_else_is_there(self) -> None:
        layout = self._layout
        expected = {file for path in self.left for file in _files(path)}
        for old, new in self.moves.items():
            if self._is_download(old) or new == layout.case:
                continue
            inside = {path for path, state in self._before[old].items() if state[0] != "directory"}
            expected |= {Path(f"{new}{path}") for path in inside}
            added = (new / name for name in ("snapshotid.txt", "volume.json"))
            expected |= {path for path in added if path.exists()}
        ours = (layout.upgrade, layout.run, layout.case, *self._others)
        found = _files(self.device.persist)
        rest = {path for path in found if not any(path.is_relative_to(each) for each in ours)}
        assert rest ^ expected == set()
        assert {path.name for path in layout.upgrade.iterdir()} == {
            *("journal.jsonl", "merges.jsonl", "report.json", "held", layout.kept_downloads.name),
        }
        # The one with its format after its name, which nobody has asked to adopt.
        held = {path.name for path in layout.held_volumes.iterdir()}
        assert held == {self.device.new(OldApp("shipped")).name}

    def _assert_report_accounts_for_every_file(self) -> None:
        persist = self.device.persist
        report = json.loads(self._layout.upgrade_report.read_bytes())
        told = {str(persist / each["source"]): each for each in report["earlier"]}
        told |= {each["source"]: each for each in report["items"]}
        for path in self._files:
            above = {str(each) for each in (path, *path.parents)}
            assert not above.isdisjoint(told), f"{path} is not accounted for"
        assert {*map(str, (*self.moves, *self.left, *self.discarded))} == set(told)
        for old, new in self.moves.items():
            target = told[str(old)]["target"]
            assert str(persist / target) == str(new)
            assert told[str(old)]["digest_before"] == told[str(old)]["digest_after"]
        assert all(told[str(path)]["explanation"] for path in self.left)
        verified = {new for old, new in self.moves.items() if self._is_download(old)}
        came = {Path(each["name"]) for each in report["merged"] if each["result"] == "moved"}
        assert came == verified


def _fill_disk(path: Path, number: int) -> None:
    """Some data, holes, written zeros, an owner, a mode, times, an attribute."""
    with path.open("wb") as file:
        file.write(os.urandom(20_000 + number))
        file.seek(_MIB + 17)
        file.write(b"in the middle" + bytes(9000))
        file.truncate(4 * _MIB + 5)
    os.chown(path, 1000 + number, 2000 + number)
    path.chmod(0o600 + number)
    os.setxattr(path, "trusted.note", b"value")
    os.utime(path, ns=(10**18, 10**18 + number))


def _files(*places: Path) -> set[Path]:
    """Everything but directories."""
    found = {path for place in places for path in (place, *place.rglob("*"))}
    return {path for path in found if path.is_symlink() or (path.exists() and not path.is_dir())}


def tree_state(place: Path) -> dict[str, State]:
    """Give what can be said of a file, or of everything in a directory, by path below it."""
    paths = [place, *sorted(place.rglob("*"))] if os.path.lexists(place) else []
    first: dict[int, str] = {}
    return {str(path)[len(str(place)) :]: _state(path, place, first) for path in paths}


def _state(path: Path, place: Path, first: dict[int, str]) -> State:
    status = path.lstat()
    names = os.listxattr(path, follow_symlinks=False)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    common = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, attributes)
    if path.is_dir() and not path.is_symlink():
        return ("directory", *common)
    same = first.setdefault(status.st_ino, str(path)[len(str(place)) :])
    if path.is_symlink():
        return ("link", *common, same, str(path.readlink()))
    if stat.S_ISREG(status.st_mode):
        return ("file", *common, same, _data(path, status))
    return ("special", *common, same, status.st_rdev)


def _data(path: Path, status: os.stat_result) -> tuple[int, bool, str]:
    sparse = status.st_blocks * 512 < status.st_size - _MIB
    return (status.st_size, sparse, hashlib.sha256(path.read_bytes()).hexdigest())


def _content(state: State) -> object:
    return state[-1]


def _kept(state: dict[str, State]) -> dict[str, State]:
    """Leave out what a run that was killed may have changed already: the top of a container."""
    return {path: value for path, value in state.items() if path or value[0] != "directory"}
