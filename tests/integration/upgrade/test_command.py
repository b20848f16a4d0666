"""``cas upgrade run`` as the one command that does everything, whoever works beside it."""

import hashlib
import io
import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.containerd.root_directory import find_root_holder
from cas.fsops.locks import is_locked
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.store.directories import create_directories
from cas.upgrade.pending import is_needed
from tests.support.command import CasProcess, write_configuration
from tests.support.daemon import private_daemon
from tests.support.old_device import OldApp, OldDevice
from tests.support.old_store import OldContainer, make_old_store
from tests.support.service import Service, StayingProcess, held_back, service_configuration
from tests.support.stopping_command import AT_CALL, AT_CHANGE
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow
_VERIFIED = b"verified"
_INTERRUPTED = 130


@dataclass(frozen=True)
class _TwoStores:
    """A device with a newer store, and what older software left beside it."""

    device: OldDevice
    settings: Settings
    config: Path

    @property
    def old(self) -> Path:
        return self.device.persist / "containerd"

    def fill_old_places(self) -> OldContainer:
        container = make_old_store(self.device, self.old, self.settings.containerd_binary)
        self.device.write_checkpoint()
        digest = hashlib.sha256(_VERIFIED).hexdigest()
        path = self.device.persist / "downloads/appImg.obj/verified" / digest / "file"
        path.parent.mkdir(parents=True)
        path.write_bytes(_VERIFIED)
        return container

    def run(self, **how: Mapping[str, str]) -> CasProcess:
        return CasProcess(self.config, "upgrade", "run", **how)

    def assert_done(self, case: Case, container: OldContainer) -> None:
        assert not self.old.exists()
        assert not is_needed(self.settings.layout)
        assert case.blobs.exists(Digest.of(_VERIFIED))
        assert case.blobs.exists(Digest.of(b"newer"))
        assert [image.name for image in case.images.iter_images()] == [container.image.name]
        name = VolumeName.parse(self.device.new(container.app).name)
        assert (case.volumes.activate(name).rootfs / "written").read_text() == "by the app"
        case.volumes.deactivate(name)
        assert case.check_store(read_data=True).findings == ()


@pytest.fixture
def stores(together: OldDevice, containerd_binary: str, tmp_path: Path) -> _TwoStores:
    settings = replace(together.settings, containerd_binary=containerd_binary)
    with private_daemon(settings), Case.open(settings) as case:
        case.blobs.ingest_stream(io.BytesIO(b"newer"))
    return _TwoStores(together, settings, service_configuration(tmp_path, settings))


@pytest.mark.parametrize("beside", ["nobody", "containerd", "service"])
def test_one_command_converts_ingests_and_merges(stores: _TwoStores, beside: str) -> None:
    """It uses whatever containerd holds the store, and runs one of its own where none does."""
    with ExitStack() as stack:
        if beside == "service":
            stack.enter_context(Service(stores.settings)).start()
        elif beside == "containerd":
            stack.enter_context(private_daemon(stores.settings))
        container = stores.fill_old_places()
        before = find_root_holder(stores.settings.layout.case)
        with stores.run() as process:
            done = process.result()
        done.assert_orderly(0)
        assert f"moved store {stores.old}" in done.out
        assert find_root_holder(stores.settings.layout.case) == before
        if beside == "nobody":
            assert before is None
            stack.enter_context(private_daemon(stores.settings))
        with Case.open(stores.settings) as case:
            stores.assert_done(case, container)


def test_service_that_starts_beside_the_command_waits_for_its_end(stores: _TwoStores) -> None:
    """Neither starts a containerd in the other's way, and both come to their end."""
    container = stores.fill_old_places()
    slow = held_back(stores.settings)
    hold = stores.settings.persist / "hold"
    hold.touch()
    with (
        StayingProcess(
            service_configuration(stores.config.parent, slow), "-v", "upgrade", "run"
        ) as command,
        Service(stores.settings) as service,
    ):
        wait_for(lambda: is_locked(stores.settings.layout.service_lock))
        service.begin()
        wait_for(lambda: "waiting for the upgrade" in service.process.log)
        hold.unlink()
        assert command.wait() == 0, command.log
        service.notify.wait_for("READY=1")
        with Case.open(stores.settings) as case:
            stores.assert_done(case, container)


@pytest.mark.parametrize(("number", "calls"), [(signal.SIGINT, 60), (signal.SIGTERM, 20)])
def test_command_that_is_interrupted_in_a_merge_ends_its_containerds_and_goes_on_later(
    stores: _TwoStores, number: signal.Signals, calls: int
) -> None:
    """Nothing runs on after it, and the next one comes to the same end."""
    container = stores.fill_old_places()
    with stores.run(stopping={AT_CALL: str(calls)}) as process:
        process.go_on_with(number)
        process.result().assert_orderly(_INTERRUPTED)
    for root in (stores.old, stores.settings.layout.case):
        assert find_root_holder(root) is None
    with stores.run() as process:
        process.result().assert_orderly(0)
    with private_daemon(stores.settings), Case.open(stores.settings) as case:
        stores.assert_done(case, container)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_that_is_interrupted_in_a_copy_leaves_the_original_and_goes_on_later(
    apart: OldDevice, number: signal.Signals, tmp_path: Path
) -> None:
    """The original is whole, the next run says what was interrupted, and the end is the same."""
    app = apart.add(OldApp("large"))
    apart.write_checkpoint()
    content = os.urandom(1 << 20) * 4
    old, new = apart.disk(f"{app.old_name()}.raw", content), apart.new(app)
    create_directories(apart.settings, repair=True)
    config = write_configuration(tmp_path, apart.settings)
    stopping = {AT_CHANGE: str(apart.settings.layout.converting(new))}
    with CasProcess(config, "upgrade", "run", stopping=stopping) as process:
        process.go_on_with(number)
        process.result().assert_orderly(_INTERRUPTED)
    assert old.read_bytes() == content
    assert not new.exists()
    with CasProcess(config, "upgrade", "run") as process:
        process.result().assert_orderly(0)
    assert new.read_bytes() == content
    assert not old.exists()
    assert list(apart.settings.layout.volumes.iterdir()) == [new]
