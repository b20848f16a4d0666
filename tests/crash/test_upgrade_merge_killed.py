"""A merge of stores that is killed, its containerds left behind, is completed by the next."""

from dataclasses import replace

import pytest

from cas.app import Case
from cas.model.volume_name import VolumeName
from cas.volumes.holds import iter_held
from tests.support.command import CasProcess, write_configuration
from tests.support.daemon import persist_directory, private_daemon
from tests.support.images import layered_image
from tests.support.old_device import OldDevice
from tests.support.old_store import make_old_store

pytestmark = pytest.mark.slow
_FIRST = 30
_STRIDE = 25
_MOST_CALLS = 300


def test_merge_killed_again_and_again_is_completed_by_the_next(containerd_binary: str) -> None:
    """Each kill leaves a containerd on the old store, and at times half a snapshot."""
    with persist_directory() as persist:
        (persist / "vault").mkdir()
        device = OldDevice(persist)
        settings = replace(device.settings, containerd_binary=containerd_binary)
        with private_daemon(settings):
            with Case.open(settings):
                pass
            other = layered_image(1, name="example.com/other:1", seed="other")
            store = persist / "containerd"
            container = make_old_store(device, store, containerd_binary, others=[other])
            device.write_checkpoint()
            device.run()
            _kill_until_done(device)
            device.run()
            with Case.open(settings) as case:
                case.recover()
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


def _kill_until_done(device: OldDevice) -> None:
    """Merge again and again, each time killed a few calls later, until it comes to its end."""
    config = write_configuration(device.persist, device.settings)
    for calls in range(_FIRST, _MOST_CALLS, _STRIDE):
        with CasProcess(config, "upgrade", "ingest") as process:
            if not process.wait_for_calls(calls):
                process.result().assert_orderly(0)
                return
            process.kill()
    pytest.fail("the merge did not end")
