"""Flags of inodes: copied where the file system has them, else told."""

import subprocess
from pathlib import Path

import pytest

from cas.fsops.effects import Effect, observed
from cas.fsops.inode_flags import remove_barred
from cas.fsops.replica import replicate
from tests.support.old_device import OldApp, OldDevice, mounted_tmpfs


def _flags(path: Path) -> str:
    """The flags that somebody sets, as lsattr has them."""
    told = subprocess.run(["lsattr", "-d", path], check=True, capture_output=True, text=True)
    return "".join(flag for flag in told.stdout.split()[0] if flag in "adiADSP")


def _set(path: Path, flags: str) -> None:
    subprocess.run(["chattr", flags, path], check=True)


def test_copy_of_a_container_keeps_the_flags_of_its_files(apart: OldDevice) -> None:
    """Also those that bar changes, further names and removal; the original goes all the same."""
    app = apart.add(OldApp("a"))
    apart.write_checkpoint()
    old = apart.container(app.old_name())
    (old / "sub").mkdir()
    files = {"log": "+a", "sub/fixed": "+id", "sub": "+i", "image-config.json": "+S"}
    for name in ("log", "sub/fixed", "another"):
        (old / name).write_text(name)
    (old / "linked").hardlink_to(old / "another")
    _set(old / "another", "+i")
    for name, flags in files.items():
        _set(old / name, flags)
    expected = {name: _flags(old / name) for name in (*files, "another", "linked", ".")}
    assert expected["another"] == expected["linked"] == "i"
    try:
        [outcome] = apart.run()
        new = apart.new(app)
        assert (outcome.result.value, outcome.flags_lost) == ("moved", ())
        assert {name: _flags(new / name) for name in expected} == expected
        assert (new / "linked").samefile(new / "another")
        assert not old.exists()
    finally:
        subprocess.run(["chattr", "-R", "-i", "-a", old.parents[3]], check=False)


@pytest.mark.parametrize("flag", ["+i", "+a"])
@pytest.mark.parametrize("kind", ["disk", "container"])
def test_run_leaves_what_a_flag_bars_from_getting_another_name(
    device: OldDevice, kind: str, flag: str
) -> None:
    """It fails before anything is done, says what to do, and goes through afterwards."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    name = app.old_name()
    old = device.disk(f"{name}.raw") if kind == "disk" else device.container(name)
    _set(old, flag)
    try:
        [outcome] = device.run()
        assert outcome.error is not None
        assert "chattr -i -a" in outcome.error.message
        assert not device.new(app).exists()
    finally:
        _set(old, flag.replace("+", "-"))
    assert [each.result.value for each in device.run()] == ["moved"]


def _projects(tree: Path) -> dict[str, tuple[str, str]]:
    """Project and inheritance of everything in a tree, as lsattr has them."""
    told = {}
    for path in (tree, *tree.rglob("*")):
        command = ["lsattr", "-p", "-d", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        project, flags, _ = done.stdout.split(maxsplit=2)
        told[str(path.relative_to(tree))] = (project, "P" if "P" in flags else "")
    return told


def test_copy_keeps_the_projects_of_files_and_directories(together: OldDevice) -> None:
    """Their numbers and their inheritance, also of what has several names and of what has none."""
    image, disk = together.persist / "image", together.persist / "disk"
    with image.open("wb") as file:
        file.truncate(300 * 1024 * 1024)
    disk.mkdir()
    # An ext4 with projects needs a kernel with quotas.
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    source = disk / "tree"
    (source / "sub").mkdir(parents=True)
    for name, project in {"a": "1234", "linked": "4294967294", "sub/none": "0"}.items():
        (source / name).touch()
        subprocess.run(["chattr", "-p", project, source / name], check=True)
    (source / "sub/link").hardlink_to(source / "linked")
    subprocess.run(["chattr", "+P", "-p", "77", source / "sub"], check=True)
    assert replicate(source, disk / "copy", advance=lambda _: None).flags_lost == ()
    assert _projects(disk / "copy") == _projects(source)
    assert _projects(source) == {
        ".": ("0", ""),
        "a": ("1234", ""),
        "linked": ("4294967294", ""),
        "sub": ("77", "P"),
        "sub/link": ("4294967294", ""),
        "sub/none": ("0", ""),
    }


def test_copy_tells_of_flags_that_the_target_does_not_have(together: OldDevice) -> None:
    """What bars changes is not given to the top, which has to be renamed; nothing fails for it."""
    source, far = together.persist / "tree", together.persist / "far"
    source.mkdir()
    far.mkdir()
    for name in ("synchronous", "quiet"):
        (source / name).touch()
    _set(source / "synchronous", "+S")
    _set(source / "quiet", "+d")
    _set(source, "+a")
    try:
        with mounted_tmpfs(far):
            replica = replicate(source, far / "tree", advance=lambda _: None)
            assert set(replica.flags_lost) == {str(source / "synchronous"), str(source)}
            assert _flags(far / "tree/quiet") == "d"
    finally:
        _set(source, "-a")


def test_removal_announces_each_flag_that_it_takes(together: OldDevice) -> None:
    """What a crash between two of them leaves can be tried; a name outside the tree stays."""
    tree, outside = together.persist / "tree", together.persist / "outside"
    (tree / "sub").mkdir(parents=True)
    (tree / "free").touch()
    (tree / "sub/fixed").touch()
    outside.hardlink_to(tree / "sub/fixed")
    barred = [str(tree / "sub/fixed"), str(tree / "sub")]
    seen: list[str] = []

    def heed(kind: Effect, path: str) -> None:
        if kind is Effect.ACCESS:
            seen.append(path)

    try:
        for path in barred:
            _set(Path(path), "+i")
        with observed(heed):
            assert remove_barred(tree)
    finally:
        subprocess.run(["chattr", "-R", "-i", together.persist], check=False)
    assert sorted(seen) == sorted(barred)
    assert not tree.exists()
    assert outside.exists()
