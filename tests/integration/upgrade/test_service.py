"""The service converts what older software left, before its containerd makes a new store."""

import hashlib
import os
import stat
from dataclasses import replace

import pytest

from cas.app import Case
from cas.errors import LayoutError
from cas.model.digest import Digest
from cas.model.volume_name import VolumeName
from cas.rpc.client import Client
from cas.store.directories import create_directories, find_deviations
from cas.store.kept_downloads import keep
from cas.volumes.holds import iter_held
from tests.support.daemon import private_daemon
from tests.support.old_device import OldApp, OldDevice
from tests.support.old_store import make_old_store
from tests.support.service import Service

pytestmark = pytest.mark.slow


def test_service_at_its_start_converts_and_serves_old_volumes(
    apart: OldDevice, containerd_binary: str
) -> None:
    """Disk, container and store are in their new places when it says that it is ready."""
    container = make_old_store(apart, apart.persist / "containerd", containerd_binary)
    app = apart.add(OldApp("disk"))
    apart.write_checkpoint(contained=True)
    apart.disk(f"{app.old_name()}.raw", b"disk")
    _download(apart, b"verified")
    create_directories(apart.settings, repair=True)
    with Service(apart.settings) as service:
        service.start()
        assert apart.new(app).read_bytes() == b"disk"
        with Client.connect(apart.settings.service_socket) as client:
            disks = {str(each.name): bool(each.disk) for each in client.volumes.iter_volumes()}
            boxed = apart.new(container.app).name
            assert disks == {boxed: False, apart.new(app).name: True}
            name = VolumeName.parse(boxed)
            root = client.volumes.activate(name).rootfs
            assert (root / "written").read_text() == "by the app"
            client.volumes.deactivate(name)
        assert list(apart.settings.layout.verified.iterdir()) == []
        assert any("converting old volumes" in line for line in service.notify.listen())


def test_service_beside_an_old_store_merges_it_and_serves_its_containers(
    together: OldDevice, containerd_binary: str
) -> None:
    """A downgraded device that comes back has both stores, and loses neither's volumes."""
    settings = together.settings
    with private_daemon(replace(settings, containerd_binary=containerd_binary)):
        Case.open(settings).close()
    container = make_old_store(together, together.persist / "containerd", containerd_binary)
    together.write_checkpoint()
    with Service(settings) as service:
        service.start()
        with Client.connect(settings.service_socket) as client:
            root = client.volumes.activate(VolumeName.parse(together.new(container.app).name))
            assert (root.rootfs / "written").read_text() == "by the app"
            client.volumes.deactivate(root.name)
            assert container.image.name in {image.name for image in client.images.iter_images()}
    assert not (together.persist / "containerd").exists()


def _download(device: OldDevice, content: bytes) -> None:
    name = hashlib.sha256(content).hexdigest()
    path = device.persist / "downloads/appImg.obj/verified" / name / "file"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def test_service_that_cannot_convert_holds_volumes_and_serves(together: OldDevice) -> None:
    """A device without a readable configuration is still of use for everything else."""
    together.disk(f"{OldApp('a').old_name()}.raw")
    create_directories(together.settings, repair=True)
    with Service(together.settings) as service:
        service.start()
        assert [name for name, _ in iter_held(together.settings.layout)] == ["all"]
        assert service.health() == "SERVING"


def _old_directories(device: OldDevice) -> None:
    """Make those that older software has, with its mode, and its one user's group."""
    for name in ("vault", "vault/volumes", "clear", "clear/volumes"):
        path = device.persist / name
        path.mkdir(exist_ok=True)
        os.chown(path, 0, 1)
        path.chmod(0o755)


def test_service_that_is_to_take_in_a_download_gives_old_directories_their_mode(
    together: OldDevice,
) -> None:
    """An upgrade that was killed after its conversion is not done, although nothing old is left."""
    layout = together.settings.layout
    _old_directories(together)
    keep(layout, Digest.of(b"verified"))
    with Service(together.settings) as service:
        service.start()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (layout.vault, layout.volumes)} == {0o750}


def test_service_at_its_start_gives_old_directories_owner_and_mode(together: OldDevice) -> None:
    """Nobody is there to repair the layout by hand when a device starts new software."""
    app = together.add(OldApp("disk"))
    together.write_checkpoint()
    together.disk(f"{app.old_name()}.raw", b"disk")
    _old_directories(together)
    (together.persist / "vault/volumes").chmod(0o1363)  # 755 that was taken as decimal
    with Service(together.settings) as service:
        service.start()
        log = service.process.log
    deviating = {each.path.name for each in find_deviations(together.settings)}
    assert deviating == {"checkpoint"}  # read only, and nobody is refused because of it
    assert together.new(app).read_bytes() == b"disk"
    assert f"mode path={together.persist}/vault/volumes expected=0750 found=1363" in log


@pytest.mark.parametrize(
    ("name", "is_old"), [("vault", False), ("vault/case", True)], ids=["nothing-old", "not-of-old"]
)
def test_service_refuses_modes_that_no_older_software_left(
    together: OldDevice, name: str, is_old: bool
) -> None:
    """Neither without anything to upgrade, nor of a directory that older software never made."""
    if is_old:
        together.disk(f"{OldApp('a').old_name()}.raw")
    create_directories(together.settings, repair=True)
    path = together.persist / name
    path.chmod(0o755)
    with Service(together.settings) as service:
        service.begin()
        assert service.process.wait() == LayoutError.exit_code
        assert f"{path} is not as the layout wants it: mode" in service.process.log
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
