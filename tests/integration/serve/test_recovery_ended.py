"""A service that ends while it recovers, at its start, what an earlier one left."""

import signal
from pathlib import Path

import pytest

from cas.app import Case
from cas.containerd.daemon import Daemon
from cas.model.settings import Settings
from cas.rpc.client import Client
from tests.support import held_recovery
from tests.support.images import layered_image
from tests.support.service import Service
from tests.support.volumes import volume_name
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

_NAME = "example.com/test/image:1"
_LEFT = 3


def _prepare_and_leave(settings: Settings, archive: Path) -> None:
    """One volume that stays, one whose removal was begun, and some that were to be made."""
    volumes = settings.layout.volumes
    with Daemon(settings), Case.open(settings) as case:
        case.images.import_archive(archive)
        stays, goes = volume_name(), volume_name()
        for name in (stays, goes):
            case.volumes.prepare(name, _NAME)
        (volumes / str(goes)).rename(volumes / f".{goes}.removing")
    for _ in range(_LEFT - 1):
        (volumes / f".{volume_name()}.preparing/rootfs").mkdir(parents=True)


def _left(settings: Settings) -> int:
    return sum(path.name.startswith(".") for path in settings.layout.volumes.iterdir())


def _begin_and_stand(service: Service) -> None:
    """Let it recover the first leftover and come to the second."""
    stands = service.settings.persist / "stands"
    held = {
        held_recovery.STANDS: str(stands),
        held_recovery.VOLUMES: str(service.settings.layout.volumes),
    }
    service.begin(environment=held, module=held_recovery.__name__)
    wait_for(lambda: stands.exists() or not service.process.is_running())
    assert service.process.is_running(), service.process.log


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_service_ended_during_its_first_recovery_leaves_the_rest_to_the_next(
    own_settings: Settings, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """It does not finish first, and nothing of what was done or not done is in the way."""
    archive = layered_image(1, name=_NAME).write_oci_tar(tmp_path / "image.tar")
    _prepare_and_leave(own_settings, archive)
    before = _left(own_settings)
    with Service(own_settings) as service:
        _begin_and_stand(service)
        assert _left(own_settings) == before - 1
        service.process.signal(number)
        assert service.process.wait() == status, service.process.log
        assert _left(own_settings) == before - 1
        assert "READY=1" not in service.notify.listen()

        service.start()

        assert _left(own_settings) == before - _LEFT
        with Client.connect(own_settings.service_socket) as client:
            assert len(list(client.volumes.iter_volumes())) == 1
            assert client.check_store().findings == ()
