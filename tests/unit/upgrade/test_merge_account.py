"""The account of what merges of stores brought and left."""

from contextlib import suppress
from pathlib import Path

from cas.errors import StorageError
from cas.fsops.effects import Effect, observed
from cas.upgrade.merge_account import MergeAccount, MergeEntry
from cas.upgrade.merged import Merged, MergedKind

_STORE = "/persist/containerd"


def _entry(name: str, *, kind: MergedKind = MergedKind.BLOB, fails: bool = False) -> MergeEntry:
    error = StorageError("damaged") if fails else None
    return MergeEntry.of(Merged(kind, name, error), store=_STORE, time="now")


def test_account_counts_the_blobs_that_came_in(tmp_path: Path) -> None:
    """However many, they are one line and one sync for each merge; what failed is named."""
    path = tmp_path / "merges.jsonl"
    syncs = 0

    def heed(kind: Effect, of: str) -> None:
        nonlocal syncs
        syncs += kind is Effect.FSYNC and of == str(path)

    for start in (0, 100):
        with observed(heed), MergeAccount(path) as account:
            account.note(_entry("damaged", fails=start == 0))
            for number in range(100):
                account.note(_entry(f"blob {start + number}"))
            account.note(_entry("image", kind=MergedKind.IMAGE))
    assert syncs <= 6
    told = {entry.name: (entry.result, entry.count) for entry in MergeAccount(path).entries()}
    assert told == {"damaged": ("moved", 1), "image": ("moved", 1), "": ("moved", 200)}


def test_account_of_a_merge_that_is_stopped_has_the_count(tmp_path: Path) -> None:
    """What came in until then is told."""
    path = tmp_path / "merges.jsonl"
    account = MergeAccount(path)
    with suppress(KeyboardInterrupt), account:
        account.note(_entry("blob"))
        raise KeyboardInterrupt
    assert [(entry.name, entry.count) for entry in MergeAccount(path).entries()] == [("", 1)]
