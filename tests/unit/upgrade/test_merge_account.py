"""The account of what merges of stores brought and left."""

import gc
import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from cas.errors import StorageError
from cas.fsops.effects import Effect, observed
from cas.model.digest import Digest
from cas.upgrade.merge_account import MergeAccount
from cas.upgrade.merge_entry import MergeEntry
from cas.upgrade.merged import Merged, MergedKind

_STORE = "/persist/containerd"


def _entry(name: str, *, kind: MergedKind = MergedKind.BLOB, fails: bool = False) -> MergeEntry:
    error = StorageError("damaged") if fails else None
    return MergeEntry.of(Merged(kind, name, error), store=_STORE, time="now")


def _blob(content: bytes) -> Path:
    return Path(_STORE, hashlib.sha256(content).hexdigest())


def _told(path: Path) -> dict[str, tuple[str, str]]:
    return {each.name: (each.result, each.explanation) for each in MergeAccount(path).entries()}


def test_account_names_every_blob_that_came_in_with_few_syncs(tmp_path: Path) -> None:
    """Of so many there is one sync before and one after; what failed is among them."""
    path = tmp_path / "merges.jsonl"
    names = [str(_blob(b"%d" % number)) for number in range(100)]
    syncs = 0

    def heed(kind: Effect, of: str) -> None:
        nonlocal syncs
        syncs += kind is Effect.FSYNC and of == str(path)

    for fails in (True, False):
        with observed(heed), MergeAccount(path) as account:
            account.expect(_STORE, map(Path, [*names, "damaged"]), time="now")
            account.note(_entry("damaged", fails=fails))
            for name in names:
                account.note(_entry(name))
    assert syncs <= 6
    assert _told(path) == dict.fromkeys([*names, "damaged"], ("moved", ""))


def test_account_of_a_merge_that_is_killed_learns_what_came_in(tmp_path: Path) -> None:
    """A file goes only when the store has its blob; where it has not, the account says so."""
    path = tmp_path / "merges.jsonl"
    came, lost = _blob(b"came in"), _blob(b"lost")
    there = tmp_path / _blob(b"still there").name
    there.touch()
    MergeAccount(path).expect(_STORE, [came, lost, there], time="now")
    assert {result for result, _ in _told(path).values()} == {"left"}
    assert not MergeAccount(path).is_settled
    lacking = {Digest(lost.name), Digest(there.name)}
    for _ in range(2):
        with MergeAccount(path) as account:
            account.settle(lacking.intersection, time="now")
    told = _told(path)
    assert (told[str(came)][0], told[str(there)][0]) == ("moved", "left")
    assert told[str(lost)] == ("failed", "its file is gone, and the store lacks it")
    assert len(path.read_bytes().splitlines()) == len(told) + 2
    there.unlink()
    with MergeAccount(path) as account:
        account.settle(lambda _: (), time="now")
    assert MergeAccount(path).is_settled


def test_account_of_a_merge_that_is_stopped_tells_what_came_in(tmp_path: Path) -> None:
    """As far as it had got."""
    path = tmp_path / "merges.jsonl"
    account = MergeAccount(path)
    with suppress(KeyboardInterrupt), account:
        account.expect(_STORE, [Path("blob"), Path("next")], time="now")
        account.note(_entry("blob"))
        raise KeyboardInterrupt
    assert {name: result for name, (result, _) in _told(path).items()} == {
        "blob": "moved",
        "next": "left",
    }


def test_account_with_many_entries_takes_no_more_memory_than_with_few(tmp_path: Path) -> None:
    """What was noted is looked up in the file, a part of it at a time."""
    assert _most_blocks(tmp_path / "many", 12000) < 2 * _most_blocks(tmp_path / "few", 4000)


def _most_blocks(path: Path, count: int) -> int:
    """Give how many objects are alive at most while a merge of so many blobs is noted and told."""
    gc.collect()  # what earlier tests left would go from what is counted here
    before, most = sys.getallocatedblocks(), 0

    def sampled(paths: Iterable[Path]) -> Iterator[Path]:
        nonlocal most
        for number, each in enumerate(paths):
            if number % 100 == 0:
                most = max(most, sys.getallocatedblocks() - before)
            yield each

    def blobs() -> Iterator[Path]:
        return sampled(Path(_STORE, f"{each:064x}") for each in range(count))

    with MergeAccount(path) as account:
        account.expect(_STORE, blobs(), time="now")
        for blob in blobs():
            account.note(_entry(str(blob)))
        account.settle(lambda _: (), time="now")
    told = (Path(each.name) for each in MergeAccount(path).entries() if each.came_in)
    assert sum(1 for _ in sampled(told)) == count
    return most
