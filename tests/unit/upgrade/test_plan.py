"""What a plan says about every kind of thing in the old places."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.model.digest import Digest
from cas.upgrade.device_config import (
    AppConfig,
    DeviceConfig,
    DriveConfig,
    VolumeConfig,
    VolumeReference,
)
from cas.upgrade.items import Planned
from cas.upgrade.matching import LatchKey, Match, Mismatch, VolumeMatching
from cas.upgrade.old_name import OldName
from tests.support.old_device import OldApp, OldDevice


@pytest.fixture
def device(tmp_path: Path) -> OldDevice:
    return OldDevice(tmp_path)


def _told(planned: list[Planned]) -> dict[str, tuple[str, str, str | None]]:
    return {
        each.found.path.name: (
            each.action.value,
            each.reason.value,
            None if each.volume is None else str(each.volume),
        )
        for each in planned
    }


def _volume(app: OldApp, drive: int = 0, generation: int = 0) -> str:
    return f"{app.volume(drive)}#{generation}"


def test_plan_of_a_disk_renames_it_to_its_volume(device: OldDevice) -> None:
    """The plain case, with a generation, and nothing is changed by planning."""
    app = device.add(OldApp("a"), generation=4)
    device.write_checkpoint()
    path = device.disk(f"{app.old_name()}.qcow2")
    [planned] = device.plan()
    assert _told([planned]) == {path.name: ("rename", "matched", _volume(app, 0, 4))}
    assert planned.target == device.new(app, generation=4)
    assert path.exists()
    assert not (device.persist / "vault").exists()


def test_plan_of_two_drives_with_one_image_tells_them_apart(device: OldDevice) -> None:
    """After a purge the first drive's name has the counter, the second's has none."""
    app = device.add(OldApp("a", purge=2, drives=("same", "same")))
    device.write_checkpoint()
    first, second = device.disk(f"{app.old_name(0)}.raw"), device.disk(f"{app.old_name(1)}.raw")
    assert _told(device.plan()) == {
        first.name: ("rename", "matched", _volume(app, 0)),
        second.name: ("rename", "matched", _volume(app, 1)),
    }


def test_plan_of_a_drive_behind_one_without_an_image_keeps_its_index(device: OldDevice) -> None:
    """A drive without an image has a volume reference all the same."""
    app = device.add(OldApp("a", drives=("one", None, "three")))
    device.write_checkpoint()
    third = device.disk(f"{app.old_name(2)}.raw")
    assert _told(device.plan()) == {third.name: ("rename", "matched", _volume(app, 2))}


def test_plan_of_stale_and_current_purges_moves_the_current_one(device: OldDevice) -> None:
    """Whichever comes first in the directory, only the current data becomes the volume."""
    app = device.add(OldApp("a", purge=3))
    device.write_checkpoint()
    names = {purge: device.disk(f"{app.old_name(purge=purge)}.raw").name for purge in (0, 2, 3, 10)}
    assert _told(device.plan()) == {
        names[0]: ("leave", "stale-purge", None),
        names[2]: ("leave", "stale-purge", None),
        names[3]: ("rename", "matched", _volume(app)),
        names[10]: ("leave", "stale-purge", None),
    }


@pytest.mark.parametrize("suffix", ["", ".bak"])
def test_plan_of_a_drive_without_a_digest_asks_the_latch(device: OldDevice, suffix: str) -> None:
    """For tags the old software noted the digest; a power cut may have left the copy only."""
    app = device.add(OldApp("a", purge=1))
    path = device.latch(app, suffix=suffix)
    if suffix:
        path.with_suffix("").touch()
    device.write_checkpoint()
    disk = device.disk(f"{app.old_name().upper()[:64]}{app.old_name()[64:]}.raw")
    assert _told(device.plan()) == {disk.name: ("rename", "matched", _volume(app))}


def test_plan_of_a_drive_without_digest_or_latch_asks_its_content_tree(device: OldDevice) -> None:
    """The volume's origin has the digest."""
    app = device.add(OldApp("a"))
    config = device.response.config
    config.apps[0].drives[0].image.sha256 = ""
    config.volumes[0].origin.downloadContentTreeID = str(uuid.UUID(int=9))
    config.contentInfo.add(uuid=str(uuid.UUID(int=9)), sha256=app.digest().upper())
    device.write_checkpoint()
    disk = device.disk(f"{app.old_name()}.raw")
    assert _told(device.plan()) == {disk.name: ("rename", "matched", _volume(app))}


def _drop_reference(device: OldDevice) -> None:
    del device.response.config.apps[0].volumeRefList[:]


def _break_reference(device: OldDevice) -> None:
    device.response.config.apps[0].volumeRefList[0].uuid = "no UUID"


def _zero_reference(device: OldDevice) -> None:
    device.response.config.apps[0].volumeRefList[0].uuid = str(uuid.UUID(int=0))


def _turn_generation(device: OldDevice) -> None:
    device.response.config.apps[0].volumeRefList[0].generationCount = -1


@pytest.mark.parametrize(
    "change", [_drop_reference, _break_reference, _zero_reference, _turn_generation]
)
def test_plan_without_a_good_volume_reference_leaves_the_disk(
    device: OldDevice, change: Callable[[OldDevice], None]
) -> None:
    """Nothing is ever moved to a volume of zeros."""
    app = device.add(OldApp("a"))
    change(device)
    device.write_checkpoint()
    disk = device.disk(f"{app.old_name()}.raw")
    assert _told(device.plan()) == {disk.name: ("leave", "no-volume", None)}


def test_plan_leaves_what_is_no_drive_of_the_device(device: OldDevice) -> None:
    """Each with its reason: foreign apps and images, wrong types, unfinished and foreign names."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    stranger = OldApp("stranger")
    other = device.disk(f"{stranger.old_name()}.raw")
    wrong = device.disk(f"{'0' * 64}-{app.app}.raw")
    unfinished = device.disk(f"{app.old_name()}.raw.tmp")
    directory = device.persist / "img" / f"{app.old_name()}.dir"
    directory.mkdir()
    link = device.persist / "img" / f"{app.old_name()}.link"
    link.symlink_to(wrong)
    plain = device.persist / "runx/pods/prepared" / app.old_name()
    plain.write_text("a file where a directory belongs")
    assert _told(device.plan()) == {
        other.name: ("leave", "unknown-app", None),
        wrong.name: ("leave", "unknown-image", None),
        unfinished.name: ("leave", "no-volume-name", None),
        directory.name: ("leave", "wrong-type", None),
        link.name: ("leave", "wrong-type", None),
        plain.name: ("leave", "wrong-type", None),
    }


def test_plan_of_a_volume_in_clear_leads_to_clear_volumes(device: OldDevice) -> None:
    """A disk that asks for clear text is not hidden in the vault; a container always is."""
    app = device.add(OldApp("a"), clear=True)
    boxed = device.add(OldApp("b"), clear=True)
    device.write_checkpoint()
    device.disk(f"{app.old_name()}.raw")
    device.container(boxed.old_name())
    assert [each.target for each in device.plan()] == [
        device.new(app, clear=True),
        device.new(boxed),
    ]


def test_plan_of_two_files_for_one_volume_moves_the_first(device: OldDevice) -> None:
    """The same drive in two formats: only one can be the volume, and the other is reported."""
    app = device.add(OldApp("a"))
    device.write_checkpoint()
    device.disk(f"{app.old_name()}.qcow2")
    device.disk(f"{app.old_name()}.raw")
    planned = device.plan()
    assert [each.reason.value for each in planned] == ["matched", "volume-taken"]


def test_plan_without_a_config_leaves_all_disks(device: OldDevice) -> None:
    """Nothing is guessed."""
    disk = device.disk(f"{OldApp('a').old_name()}.raw")
    assert _told(device.plan()) == {disk.name: ("leave", "no-config", None)}
    (device.persist / "checkpoint/config").write_bytes(b"\xff garbage")
    [planned] = device.plan()
    assert "config" in planned.explanation


@pytest.mark.parametrize("name", ["config.bak", "lastconfig", "lastconfig.bak"])
def test_plan_with_a_damaged_config_falls_back(device: OldDevice, name: str) -> None:
    """A power cut damages one copy of the configuration."""
    app = device.add(OldApp("a"))
    (device.persist / "checkpoint/config").write_bytes(b"")
    device.write_checkpoint(name, contained=True)
    disk = device.disk(f"{app.old_name()}.raw")
    assert _told(device.plan()) == {disk.name: ("rename", "matched", _volume(app))}


@pytest.mark.parametrize("adopt", [False, True])
def test_plan_of_suffixed_volumes_renames_them_when_asked(device: OldDevice, adopt: bool) -> None:
    """EVE's own names stay unless somebody wants them converted."""
    app = OldApp("a")
    device.write_checkpoint()
    device.new(app).parent.mkdir(parents=True)
    suffixed = device.new(app).with_name(f"{_volume(app)}.qcow2")
    suffixed.touch()
    expected = ("rename", "matched") if adopt else ("leave", "suffixed")
    assert _told(device.plan(adopt_suffixed=adopt)) == {suffixed.name: (*expected, _volume(app))}


def test_latch_is_asked_with_the_purge_of_the_drive() -> None:
    """Only the first drive has the app's counter."""
    app, image, volume = (uuid.UUID(int=number) for number in (1, 2, 3))
    drives = (DriveConfig(image, None), DriveConfig(image, None))
    references = (VolumeReference(volume, 0), VolumeReference(volume, 1))
    config = DeviceConfig(
        uuid.UUID(int=9),
        (AppConfig(app, 7, drives, references),),
        {volume: VolumeConfig(False, None)},
        {},
    )
    digest = Digest("a" * 64)
    matching = VolumeMatching(config, {LatchKey(app, image, 0): digest})
    found = matching.find(OldName(digest, app, 0, "raw"))
    assert isinstance(found, Match)
    assert found.drive == 1
    assert isinstance(matching.find(OldName(digest, app, 7, "raw")), Mismatch)


def test_plan_without_the_latch_suspects_the_drives_without_a_digest(device: OldDevice) -> None:
    """Which of them the file is cannot be told, and an empty volume must take none's name."""
    app = device.add(OldApp("a", drives=("one", "two", "three")))
    for drive in device.response.config.apps[0].drives[:2]:
        drive.image.sha256 = ""
    device.write_checkpoint()
    device.disk(f"{app.old_name(0)}.raw")
    third = device.disk(f"{app.old_name(2)}.raw")
    left, moved = sorted(device.plan(), key=lambda each: each.found.path == third)
    assert left.reason.value == "no-digest"
    assert {str(each) for each in left.suspects} == {_volume(app, 0), _volume(app, 1)}
    assert moved.volume is not None
    assert not moved.suspects
