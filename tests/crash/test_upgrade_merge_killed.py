"""An upgrade of two stores that is killed is completed by the next, whatever runs on meanwhile."""

import json
from dataclasses import replace

import pytest

from cas.app import Case
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.volumes.holds import iter_held
from tests.support.command import CasProcess
from tests.support.daemon import persist_directory, private_daemon
from tests.support.images import layered_image
from tests.support.old_device import OldDevice
from tests.support.old_store import make_old_store
from tests.support.service import service_configuration

pytestmark = pytest.mark.slow
_FIRST = 30
_STRIDE = 25
_MOST_CALLS = 300


def test_upgrade_of_two_stores_killed_again_and_again_is_completed_by_the_next(
    containerd_binary: str,
) -> None:
    """Each kill leaves one containerd or two, and at times half a snapshot; no file is untold."""
    with persist_directory() as persist:
        (persist / "vault").mkdir()
        device = OldDevice(persist)
        settings = replace(device.settings, containerd_binary=containerd_binary)
        with private_daemon(settings):
            Case.open(settings).close()
        other = layered_image(1, name="example.com/other:1", seed="other")
        store = persist / "containerd"
        container = make_old_store(device, store, containerd_binary, others=[other])
        blobs = {path.name for path in store.glob("*content*/blobs/sha256/*")}
        device.write_checkpoint()
        _kill_until_done(settings)
        with private_daemon(settings), Case.open(settings) as case:
            assert {image.name for image in case.images.iter_images()} == {
                container.image.name,
                other.name,
            }
            name = VolumeName.parse(device.new(container.app).name)
            assert (case.volumes.activate(name).rootfs / "written").read_text() == "by the app"
            case.volumes.deactivate(name)
            assert case.check_store(read_data=True).findings == ()
        assert not store.exists()
        assert list(iter_held(settings.layout)) == []
        report = json.loads(settings.layout.upgrade_report.read_bytes())
        told = {
            (each["kind"], each["name"].rpartition("/")[2], each["result"])
            for each in report["merged"]
        }
        assert {("blob", name, "moved") for name in blobs} <= told
        assert {("snapshot", layer, "discarded") for layer in container.image.chain_ids} <= told
        assert {result for _, _, result in told} == {"moved", "discarded"}


def _kill_until_done(settings: Settings) -> None:
    """Upgrade again and again, each time killed a few calls later, until it comes to its end."""
    config = service_configuration(settings.persist, settings)
    for calls in range(_FIRST, _MOST_CALLS, _STRIDE):
        with CasProcess(config, "upgrade", "run") as process:
            if not process.wait_for_calls(calls):
                process.result().assert_orderly(0)
                return
            process.kill()
    pytest.fail("the merge did not end")
