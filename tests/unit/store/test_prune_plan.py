"""Plans are exact: what they count is what comes free, whatever images share."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import LAST_USED
from cas.model.media_types import OCI_MANIFEST
from cas.model.records import ImageRecord
from cas.store.account.graph import Kind
from cas.store.account.inventory import Inventory, Pin
from cas.store.prune.plan import Action, PrunePlan, make_plan
from cas.store.prune.selection import Selection

NOW = datetime(2026, 5, 4, tzinfo=UTC)


def _digest(number: int) -> Digest:
    return Digest(f"{number:064x}")


class _Shelf:
    """Blobs numbered from 0 with a size of 2**number, so that a sum tells its parts."""

    def __init__(self, blobs: int) -> None:
        self.inventory = Inventory()
        for number in range(blobs):
            self.inventory.graph.add(Kind.BLOB, str(_digest(number)), size=2**number)

    def add_image(self, name: str, age_days: int, blobs: Iterable[int]) -> None:
        """An image whose record keeps the blobs directly."""
        listed = [(Kind.BLOB, str(_digest(number))) for number in blobs]
        node = self.inventory.graph.add(Kind.IMAGE, name, keeps=listed)
        used = (NOW - timedelta(days=age_days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        target = Descriptor(OCI_MANIFEST, Digest("f" * 64), 1)
        self.inventory.images[node] = ImageRecord(name, target, {LAST_USED: used}, NOW, NOW)

    def add_pin(self, number: int, *, selected: bool, age_days: int = 0) -> None:
        """Pin a blob."""
        node = self.inventory.graph.find(Kind.BLOB, str(_digest(number)))
        assert node is not None
        self.inventory.pins[node] = Pin(
            "", "", NOW - timedelta(days=age_days), selected=selected, sentinel=False
        )

    def plan(self, needed: int | None = None) -> PrunePlan:
        """Plan with all images selected."""
        return make_plan(
            self.inventory,
            Selection(),
            now=NOW,
            size_of=self.inventory.graph.size,
            needed=needed,
        )


def _dropped(plan: PrunePlan) -> set[str]:
    return {each.name for each in plan.objects if each.kind == "image"}


_images = st.lists(
    st.tuples(st.integers(0, 5), st.frozensets(st.integers(0, 9), max_size=10)), max_size=6
)
_pins = st.dictionaries(st.integers(0, 9), st.tuples(st.booleans(), st.integers(0, 5)), max_size=4)


@given(_images, _pins, st.none() | st.integers(0, 1100))
def test_planned_bytes_are_those_that_nothing_keeps_afterwards(
    images: list[tuple[int, frozenset[int]]],
    pins: dict[int, tuple[bool, int]],
    needed: int | None,
) -> None:
    """Whatever is shared: the plan frees exactly what no remaining image or pin keeps."""
    shelf = _Shelf(10)
    kept_by = {f"image{number}": blobs for number, (_, blobs) in enumerate(images)}
    for number, (age, blobs) in enumerate(images):
        shelf.add_image(f"image{number}", age, blobs)
    for number, (selected, age) in pins.items():
        shelf.add_pin(number, selected=selected, age_days=age)
    plan = shelf.plan(needed)
    unpinned = {each.name for each in plan.objects if each.action is Action.UNPIN}
    remaining = {number for number in pins if str(_digest(number)) not in unpinned}
    for name, blobs in kept_by.items():
        if name not in _dropped(plan):
            remaining |= blobs
    assert plan.size == sum(2**number for number in range(10) if number not in remaining)
    names = [(each.kind, each.name) for each in plan.objects if each.size]
    assert len(names) == len(set(names))


@given(_images, st.integers(1, 1100))
def test_goal_drops_no_image_that_was_used_later_than_a_kept_one(
    images: list[tuple[int, frozenset[int]]], needed: int
) -> None:
    """Least recently used first, and nothing more once the need is met."""
    shelf = _Shelf(10)
    for number, (age, blobs) in enumerate(images):
        shelf.add_image(f"image{number}", age, blobs)
    plan = shelf.plan(needed)
    dropped = _dropped(plan)
    ages = {f"image{number}": age for number, (age, _) in enumerate(images)}
    kept_ages = [age for name, age in ages.items() if name not in dropped]
    dropped_ages = [age for name, age in ages.items() if name in dropped]
    assert not kept_ages or not dropped_ages or max(kept_ages) <= min(dropped_ages)
    if plan.missing:
        assert dropped == set(ages)


def test_need_that_garbage_meets_drops_no_image() -> None:
    """What nothing refers to goes first and counts."""
    shelf = _Shelf(3)
    shelf.add_image("image", 9, [0])
    plan = shelf.plan(needed=6)
    assert _dropped(plan) == set()
    assert (plan.size, plan.missing) == (6, 0)


def test_shared_blob_counts_for_the_image_used_last() -> None:
    """Dropping the older of two sharers frees its own blob only."""
    shelf = _Shelf(3)
    shelf.add_image("old", 9, [0, 2])
    shelf.add_image("new", 1, [1, 2])
    assert shelf.plan(needed=1).size == 1
    assert shelf.plan(needed=2).size == 7


def test_missed_goal_names_the_largest_holders_first() -> None:
    """Pins that no filter selected are holders; sums leave nothing out."""
    shelf = _Shelf(4)
    shelf.add_pin(0, selected=False)
    shelf.add_pin(3, selected=False)
    shelf.add_image("image", 1, [1, 2])
    plan = shelf.plan(needed=100)
    assert plan.missing == 100 - 6
    assert [holder.size for holder in plan.holders] == [8, 1]
    assert all("pinned" in holder.reason for holder in plan.holders)


def test_sentinel_is_never_planned() -> None:
    """Even a selection of everything leaves the store's own mark."""
    shelf = _Shelf(1)
    node = shelf.inventory.graph.find(Kind.BLOB, str(_digest(0)))
    assert node is not None
    shelf.inventory.pins[node] = Pin("", "", NOW, selected=True, sentinel=True)
    assert shelf.plan().objects == ()


@pytest.mark.parametrize("needed", [None, 0])
def test_plan_of_an_empty_store_is_empty(needed: int | None) -> None:
    """The empty cases are defined."""
    assert _Shelf(0).plan(needed).objects == ()
