"""Limits on a layer while it is unpacked."""

from dataclasses import replace
from pathlib import Path

import pytest

from cas.errors import InterruptedOperationError, LimitExceededError, NoSpaceError
from cas.fsops.trees import free_bytes
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.limits import Limits
from cas.store.layers.watch import LayerWatch

_LAYER = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Digest("a" * 64), 1000)
_LIMITS = Limits(layer_expansion=10, layer_expansion_floor_bytes=5000, min_free_bytes=0)


class _Usage:
    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.sizes.pop(0) if self.sizes else 0


def _watch(
    usage: _Usage,
    *,
    limits: Limits = _LIMITS,
    room: Path | None = None,
    cancel: Cancellation | None = None,
    renewals: list[None] | None = None,
) -> LayerWatch:
    kept = [] if renewals is None else renewals
    return LayerWatch(
        _LAYER,
        limits,
        unpacked_bytes=usage,
        room=room,
        keep_alive=lambda: kept.append(None),
        cancel=cancel,
    )


@pytest.mark.parametrize(("floor", "largest"), [(5000, 10_000), (50_000, 50_000)])
def test_largest_is_the_higher_of_floor_and_expansion(floor: int, largest: int) -> None:
    """Small layers may expand freely up to the floor."""
    watch = _watch(_Usage([]), limits=replace(_LIMITS, layer_expansion_floor_bytes=floor))
    assert watch.largest == largest


def test_watch_of_growing_layer_stops_above_the_limit() -> None:
    """Exactly the limit passes, one byte more does not, and the message tells both numbers."""
    watch = _watch(_Usage([10_000, 10_001]))
    for _ in range(3):
        watch()
    with pytest.raises(LimitExceededError, match=r"10000.*10001"):
        watch()


def test_watch_asks_for_usage_at_growing_intervals() -> None:
    """Measuring walks the tree, so that a long unpack is measured ever more rarely."""
    usage = _Usage([])
    watch = _watch(usage)
    for _ in range(1000):
        watch()
    assert 30 < usage.calls < 50


def test_watch_renews_the_lease_at_every_look() -> None:
    """A layer may take longer than a lease lives."""
    renewals: list[None] = []
    watch = _watch(_Usage([]), renewals=renewals)
    for _ in range(3):
        watch()
    assert len(renewals) == 3


def test_watch_on_full_file_system_reports_missing_bytes(tmp_path: Path) -> None:
    """The work stops before the room that must stay is gone."""
    wanted = free_bytes(tmp_path) + 10**15
    watch = _watch(_Usage([]), limits=replace(_LIMITS, min_free_bytes=wanted), room=tmp_path)
    with pytest.raises(NoSpaceError) as caught:
        watch()
    assert 0 < int(str(caught.value.details["missing"])) <= wanted


def test_watch_after_cancellation_stops() -> None:
    """The caller's wish ends the unpack."""
    cancel = Cancellation()
    watch = _watch(_Usage([]), cancel=cancel)
    watch()
    cancel.set()
    with pytest.raises(InterruptedOperationError):
        watch()
