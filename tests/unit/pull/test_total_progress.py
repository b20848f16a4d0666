"""The sum of several downloads."""

from cas.pull.total_progress import TotalProgress


class Recorded:
    def __init__(self) -> None:
        self.done: dict[tuple[str, str], int] = {}
        self.totals: dict[tuple[str, str], int | None] = {}
        self.finished: set[tuple[str, str]] = set()

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        self.totals[action, item] = total
        self.done[action, item] = 0

    def advance(self, action: str, item: str, amount: int) -> None:
        self.done[action, item] += amount

    def finish(self, action: str, item: str) -> None:
        self.finished.add((action, item))


def test_sum_counts_downloads_and_what_need_not_be_downloaded() -> None:
    """Verification and ingest of the same bytes are not counted again."""
    recorded = Recorded()
    total = TotalProgress(recorded, "pull", "image")
    with total.of(100):
        for action in ("download", "verify", "ingest"):
            total.start(action, "a", 60)
            total.advance(action, "a", 60)
            total.finish(action, "a")
        total.skip("b", 40)

    assert recorded.totals["pull", "image"] == 100
    assert recorded.done["pull", "image"] == 100
    assert recorded.done["verify", "a"] == 60
    assert ("pull", "image") in recorded.finished


def test_item_is_counted_once_however_often_it_is_found() -> None:
    """It is looked for before and after waiting for others, and after its download."""
    recorded = Recorded()
    total = TotalProgress(recorded, "pull", "image")
    with total.of(100):
        total.skip("a", 10)
        total.skip("a", 10)
        total.start("download", "b", 5)
        total.advance("download", "b", 5)
        total.skip("b", 5)

    assert recorded.done["pull", "image"] == 15


def test_nothing_is_added_up_outside_of_the_sum() -> None:
    """Documents come before their sum is known."""
    recorded = Recorded()
    total = TotalProgress(recorded, "pull", "image")
    total.start("download", "document", 5)
    total.advance("download", "document", 5)
    total.skip("other", 5)

    assert ("pull", "image") not in recorded.done
