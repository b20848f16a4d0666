"""Images with as many layers as docker allows; their mount options exceed a page."""

import pytest

from cas.volumes.volumes import VolumeState
from tests.support.images import layered_image
from tests.support.volumes import Store, add_image, volume_name

_LAYERS = 127
_PAGE_BYTES = 4096


@pytest.mark.slow
def test_volume_of_127_layers_is_mounted_and_recognised(store: Store) -> None:
    """Writable and read-only, with the content of every layer, and idempotently."""
    image = layered_image(_LAYERS)
    add_image(store, image)
    for read_only in (False, True):
        name = volume_name()
        status = store.volumes.prepare(name, image.name, read_only=read_only, activate=True)
        (mount,) = store.backing.snapshots.mounts(str(name))
        assert len(",".join(mount.options)) > _PAGE_BYTES
        assert status.state is VolumeState.ACTIVE
        assert store.snapshots() == {*image.chain_ids, str(name)}
        assert sorted(path.name for path in status.rootfs.iterdir()) == sorted(
            ["top", *(f"layer-{number}" for number in range(_LAYERS))]
        )
        assert (status.rootfs / "top").read_text() == f"{_LAYERS - 1}\n"
        assert store.volumes.activate(name) == status
        assert store.volumes.usage(name).shared_bytes > _LAYERS * _PAGE_BYTES
        assert store.volumes.deactivate(name).state is VolumeState.INACTIVE
        assert store.volumes.remove(name)
