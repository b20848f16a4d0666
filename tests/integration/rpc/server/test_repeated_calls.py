"""Every call a second time: a caller who lost the answer may ask again."""

from collections.abc import Iterator

import pytest

from tests.support.every_call import METHODS, Stock, begin, outcome, stock
from tests.support.rpc import Service

_ENDING_WELL = sorted(METHODS.keys() - {"Blobs.Pull", "Images.Pull", "Store.Events", "Blobs.Unpin"})
"""All but those that have nobody to pull from here, the one that goes on for ever, and the one
whose blob a collection may take between the two calls."""


@pytest.fixture
def held(service: Service) -> Stock:
    """What is in its store."""
    return stock(service)


@pytest.mark.parametrize("name", _ENDING_WELL)
def test_call_that_is_repeated_succeeds_and_changes_nothing(
    service: Service, held: Stock, name: str
) -> None:
    """Invariant 10: twice is once, for what brings in, changes and removes alike."""
    outcome(name, begin(service, name, held))
    service.case.collect_garbage()  # which containerd does by itself at any time
    once = list(_contents(service, held))
    assert once

    outcome(name, begin(service, name, held))
    assert list(_contents(service, held)) == once


def _contents(service: Service, held: Stock) -> Iterator[tuple[object, ...]]:
    """What the store holds, as far as a caller can name it; times of use apart."""
    case = service.case
    for blob in sorted(case.blobs.iter_blobs(), key=lambda blob: str(blob.digest)):
        yield blob.digest, blob.size, blob.labels.keys()
    for image in sorted(case.images.iter_images(), key=lambda image: image.name):
        yield image.name, image.target.digest
    for volume in sorted(case.volumes.iter_volumes(), key=lambda volume: str(volume.name)):
        yield volume.name, volume.state, volume.rootfs
    for snapshot in case.volume_snapshots.iter_snapshots(held.idle):
        yield snapshot.volume, snapshot.name
