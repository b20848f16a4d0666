"""Blocks that several files share, counted once; the values alone."""

import pytest

from cas.store.account.sharing import SharedBlocks


@pytest.mark.parametrize(
    ("before", "added", "twice"),
    [
        ([], [(0, 10), (20, 10)], 0),
        ([(0, 10)], [(0, 10)], 10),
        ([(0, 10)], [(5, 10)], 5),
        ([(0, 10), (20, 10)], [(5, 20)], 10),
        ([(0, 10)], [(10, 10)], 0),
        ([], [(0, 10), (0, 10)], 10),
        ([(0, 100)], [(10, 5), (50, 5), (99, 5)], 11),
    ],
)
def test_bytes_that_were_counted_are_found_however_extents_overlap(
    before: list[tuple[int, int]], added: list[tuple[int, int]], twice: int
) -> None:
    """Whatever order they come in."""
    for extents in (added, list(reversed(added))):
        blocks = SharedBlocks()
        assert blocks.add(before) == 0
        assert blocks.add(extents) == twice


def test_more_extents_than_are_remembered_count_where_they_are() -> None:
    """Memory has a bound; beyond it nothing is taken for counted."""
    blocks = SharedBlocks(limit=2)
    blocks.add([(0, 1), (10, 1), (20, 1)])
    assert blocks.add([(20, 1)]) == 0
