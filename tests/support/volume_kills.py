"""Operations on volumes, killed before each of their steps in turn, in a process of their own."""

__all__ = ["forget_layers", "killed_at_each_step", "recover"]

import signal
from collections.abc import Iterator

import pytest

from cas.store.space import Space
from tests.support import volume_worker
from tests.support.forked import exit_status
from tests.support.volumes import Store

_STEPS = 200
_FEWEST = 4


def killed_at_each_step(store: Store, *arguments: str, stride: int = 1) -> Iterator[int]:
    """Run an operation, each time so many steps further, until it ends by itself.

    Args:
        store: Where.
        arguments: What to do, as ``tests.support.volume_worker`` has it.
        stride: Steps from one kill to the next.

    Yields:
        The step that the operation did not live to do.
    """
    settings = store.settings
    place = [str(settings.persist), str(settings.socket), settings.namespace]
    for step in range(0, _STEPS, stride):
        status = exit_status(volume_worker.main, [*place, *arguments, "--die", str(step)])
        if status == 0:
            assert step >= _FEWEST, "the operation has more steps than that"
            return
        assert status == -signal.SIGKILL
        yield step
    pytest.fail(f"the operation did not end within {_STEPS} steps")


def recover(store: Store) -> None:
    """Recover, and see that nothing of what was killed is left, or left for a second recovery."""
    store.leasing.reap()
    store.volumes.recover()
    assert store.volumes.recover() == []
    Space(store.backing).available()  # whoever looks drops the reservations of the dead
    store.assert_nothing_is_running()


def forget_layers(store: Store) -> None:
    """Let the next preparation begin with the first layer again; there is no volume."""
    label = "containerd.io/gc.ref.snapshot.overlayfs"
    for blob in list(store.backing.content.iter_blobs([f'labels."{label}"'])):
        store.backing.content.update_labels(blob.digest, {label: None})
    store.backing.leases.collect_garbage()
    assert store.snapshots() == set()
