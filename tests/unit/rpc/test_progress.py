"""Progress that came over the wire reaches a watcher as if it had been at the work itself."""

from cas.rpc.messages import progress
from cas.rpc.progress import ProgressReplay


class _Watcher:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        self.calls.append(("start", action, item, total, unit))

    def advance(self, action: str, item: str, amount: int) -> None:
        self.calls.append(("advance", action, item, amount))

    def finish(self, action: str, item: str) -> None:
        self.calls.append(("finish", action, item))


def test_replay_of_one_item_tells_start_amounts_and_end() -> None:
    """Sums on the wire become amounts again; signs of life are kept back."""
    watcher = _Watcher()
    replay = ProgressReplay(watcher)

    replay.hand_on(progress("read", "a", done=0, total=9))
    replay.hand_on(progress("", ""))
    replay.hand_on(progress("read", "a", done=4, total=9))
    replay.hand_on(progress("read", "a", done=9, total=9, finished=True))

    assert watcher.calls == [
        ("start", "read", "a", 9, "B"),
        ("advance", "read", "a", 4),
        ("advance", "read", "a", 5),
        ("finish", "read", "a"),
    ]


def test_replay_of_an_item_met_late_begins_it() -> None:
    """Messages may have been left out, since only some a second are sent."""
    watcher = _Watcher()

    ProgressReplay(watcher).hand_on(progress("measure", "/p", done=3, unit="files", finished=True))

    assert watcher.calls == [
        ("start", "measure", "/p", None, "files"),
        ("advance", "measure", "/p", 3),
        ("finish", "measure", "/p"),
    ]
