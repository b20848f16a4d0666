"""Old places that hold what nobody expects there: links, wrong types, names, damaged journals."""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas.errors import DigestMismatchError, LayoutError, LockTimeoutError
from cas.fsops.effects import Effect, observed
from cas.store.directories import create_directories
from cas.upgrade.items import Result
from tests.support.old_device import OldApp, OldDevice
from tests.support.old_places import contents, fill_old_places, holds

_PLACES = (
    *("img", "runx", "runx/pods", "runx/pods/prepared", "containerd", "downloads"),
    *("downloads/appImg.obj", "downloads/appImg.obj/pending", "downloads/appImg.obj/verified"),
)
_DIGEST = "ab" * 32


def _lead_away(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)


def _be_a_file(place: Path, elsewhere: Path) -> None:
    place.write_text("a file where a directory belongs")


def _hold(place: Path, elsewhere: Path) -> None:
    place.mkdir()


@pytest.mark.parametrize("put", [_lead_away, _be_a_file])
@pytest.mark.parametrize("place", _PLACES)
def test_old_place_that_is_no_directory_is_told_and_not_followed(
    together: OldDevice, tmp_path: Path, place: str, put: Callable[[Path, Path], None]
) -> None:
    """What a link leads to is somebody else's; and whatever is left shows in the report."""
    app = together.add(OldApp("a"))
    together.write_checkpoint()
    for state in ("pods/prepared", "prepared", "pending", "appImg.obj/pending", "verified"):
        (tmp_path / state / app.old_name()).mkdir(parents=True)
        (tmp_path / state / app.old_name() / "file").write_text("somebody else's")
    (tmp_path / app.old_name()).mkdir()
    (tmp_path / f"{app.old_name()}.raw").write_text("somebody else's")
    there = together.persist / place
    if there.is_dir():
        for directory in (there / "pods/prepared", there / "pods", there / "prepared", there):
            if directory.is_dir():
                directory.rmdir()
    there.parent.mkdir(parents=True, exist_ok=True)
    put(there, tmp_path)
    before = contents(tmp_path)
    [outcome] = together.run()
    assert (outcome.planned.found.path, outcome.result) == (there, Result.LEFT)
    assert contents(tmp_path) == before
    assert os.path.lexists(there)


def test_containers_beside_a_store_that_is_a_link_wait_for_it(
    together: OldDevice, tmp_path: Path
) -> None:
    """Their snapshots are in none that anybody has."""
    app = together.add(OldApp("boxed"))
    together.write_checkpoint()
    together.container(app.old_name())
    (together.persist / "containerd").symlink_to(tmp_path)
    reasons = {each.planned.found.kind.value: each.planned.reason.value for each in together.run()}
    assert reasons == {"store": "wrong-type", "container": "store-not-converted"}


def test_unfinished_download_with_the_longest_name_goes(device: OldDevice) -> None:
    """Also where no character more has room for what it is called meanwhile."""
    device.write_checkpoint()
    part = device.persist / "downloads/appImg.obj/pending" / ("n" * 255)
    part.mkdir(parents=True)
    (part / "file").write_text("half")
    assert [outcome.result for outcome in device.run()] == [Result.DISCARDED]
    assert not (device.persist / "downloads").exists()


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a\\u0000b", "img/../../outside"])
def test_journal_that_speaks_of_other_places_is_not_believed(
    together: OldDevice, path: str
) -> None:
    """A damaged line counts as missing, whatever it says."""
    app = together.add(OldApp("a"))
    together.write_checkpoint()
    together.disk(f"{app.old_name()}.raw")
    outside = together.persist.parent / f".{together.persist.name}-outside.removing"
    together.settings.layout.upgrade.mkdir(parents=True)
    path = path.replace("outside", f"{together.persist.name}-outside")
    together.settings.layout.upgrade_journal.write_text(
        f'{{"step":"intended","time":"","source":"{path}","target":""}}\n'
        f'{{"step":"intended","time":"","source":"img/x","target":"{path}"}}\n'
    )
    outside.write_text("somebody else's")
    try:
        assert [outcome.result for outcome in together.run()] == [Result.MOVED]
        assert outside.exists()
    finally:
        outside.unlink()


def test_download_with_a_wrong_digest_stays_as_it_was(device: OldDevice) -> None:
    """It is nobody's but its owner's, and the error names it and no copy that is gone."""
    device.write_checkpoint()
    path = device.persist / "downloads/appImg.obj/verified" / _DIGEST / "file"
    path.parent.mkdir(parents=True)
    path.write_text("other content")
    os.chown(path, 1234, 4321)
    before = path.stat()
    [outcome] = device.run()
    assert isinstance(outcome.error, DigestMismatchError)
    assert str(path) in outcome.error.message
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_downloads_of_one_content_become_one(device: OldDevice) -> None:
    """Of an application and of the base system: the second is needed no more, and fails nothing."""
    device.write_checkpoint()
    name = hashlib.sha256(b"content").hexdigest()
    for kind, digest in (("appImg.obj", name), ("appImg.obj", name.upper()), ("baseOs.obj", name)):
        path = device.persist / "downloads" / kind / "verified" / digest / "file"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"content")
    results = [outcome.result for outcome in device.run()]
    assert results == [Result.MOVED, Result.DISCARDED, Result.DISCARDED]
    assert [path.name for path in device.settings.layout.verified.iterdir()] == [name]


@pytest.mark.parametrize(
    ("has", "original", "result", "left"),
    [
        (b"cont", b"content", Result.MOVED, b"content"),
        (b"content", b"content", Result.DISCARDED, b"content"),
        (b"cont", b"conten", Result.FAILED, b"cont"),
    ],
    ids=["torn", "whole", "both torn"],
)
def test_download_goes_only_if_the_verifier_has_its_content(
    apart: OldDevice, has: bytes, original: bytes, result: Result, left: bytes
) -> None:
    """A name says nothing of a file that a power cut tore: the good original takes its place."""
    apart.write_checkpoint()
    name = hashlib.sha256(b"content").hexdigest()
    target = apart.settings.layout.verified / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(has)
    path = apart.persist / "downloads/appImg.obj/verified" / name / "file"
    path.parent.mkdir(parents=True)
    path.write_bytes(original)
    assert [outcome.result for outcome in apart.run()] == [result]
    assert target.read_bytes() == left
    assert path.exists() == (result is Result.FAILED)


@pytest.mark.parametrize(("name", "make"), [("rootfs", _lead_away), ("snapshotid.txt", _hold)])
def test_container_with_something_in_the_way_stays_whole(
    device: OldDevice, tmp_path: Path, name: str, make: Callable[[Path, Path], None]
) -> None:
    """The error names what it is, where it is; nothing was copied or changed."""
    app = device.add(OldApp("boxed"))
    device.write_checkpoint()
    container = device.container(app.old_name())
    (container / "rootfs").rmdir()
    make(container / name, tmp_path)
    before = contents(container)
    [outcome] = device.run()
    assert isinstance(outcome.error, LayoutError)
    assert str(container / name) in outcome.error.message
    assert contents(container) == before
    assert list(device.settings.layout.volumes.iterdir()) == []


def test_runs_at_once_convert_each_thing_once(device: OldDevice) -> None:
    """One works, and the other one waits for it or says that it has to."""
    moves = fill_old_places(device)
    before = {old: contents(old) for old in moves}
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(device.run) for _ in range(2)]
        errors = [run.exception() for run in runs]
    assert {type(error) for error in errors} <= {type(None), LockTimeoutError}
    done = [outcome for run in runs if not run.exception() for outcome in run.result()]
    moved = [each.planned.found.path for each in done if each.result is Result.MOVED]
    assert sorted(moved) == sorted(moves)
    assert all(holds(new, before[old]) for old, new in moves.items())


@pytest.mark.slow
def test_run_interrupted_at_any_change_is_completed_by_the_next(device: OldDevice) -> None:
    """As by a signal: unlike a kill, what was begun is undone, and that must undo nothing else."""
    moves = fill_old_places(device)
    before = {old: contents(old) for old in moves}
    step, ended = 0, False
    while not ended:
        ended = _run_interrupted(device, step)
        for old, new in moves.items():
            assert holds(new, before[old]) or holds(old, before[old]), step
        step += 3
    device.run()
    for old, new in moves.items():
        assert holds(new, before[old])
        assert not old.exists()
    assert not list(device.settings.layout.volumes.glob(".*"))


def _run_interrupted(device: OldDevice, step: int) -> bool:
    """Interrupt a run before one of its changes; tells whether it ended before."""
    left = step

    def interrupt(kind: Effect, path: str) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise KeyboardInterrupt

    with observed(interrupt):
        try:
            device.run()
        except KeyboardInterrupt:
            return False
    return True


@pytest.mark.parametrize("name", ["vault", "vault/volumes", "clear", "clear/volumes"])
def test_directory_that_is_no_work_of_older_software_is_refused_before_anything_is_converted(
    together: OldDevice, tmp_path: Path, name: str
) -> None:
    """Older software ran as root; what is another user's, or lies elsewhere, opens no store."""
    create_directories(together.settings, repair=True)
    app = together.add(OldApp("a"))
    together.write_checkpoint()
    disk = together.disk(f"{app.old_name()}.raw")
    path = together.persist / name
    os.chown(path, 1234, 0)
    path.chmod(0o755)
    with pytest.raises(LayoutError, match="owner: expected root"):
        together.run()
    assert disk.exists()
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (1234, 0o755)
    os.chown(path, 0, 0)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(LayoutError):
        together.run()
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
