"""What interrupted transfers leave, and who removes it."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from cas.app import Case
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName
from cas.pull.leftovers import sweep_transfers
from cas.store.locking import Locks
from cas.store.prune.selection import Selection
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import Cas

DIGEST = Digest.of(b"on its way")
HOURS_AGO = time.time() - 7200


def leftovers(settings: Settings, digest: Digest = DIGEST) -> list[Path]:
    """A file of each kind, as kills leave them."""
    layout, name = settings.layout, str(TransferName(uuid4(), digest))
    paths = [
        layout.downloader / f"{name}.partial",
        layout.downloader / f"{name}.progress",
        layout.pending / name,
        layout.verified / digest.hex,
        layout.downloader / "of nobody",
    ]
    for path in paths:
        path.write_bytes(b"x" * 5000)
    return paths


def age(paths: list[Path]) -> None:
    for path in paths:
        os.utime(path, (HOURS_AGO, HOURS_AGO))


@pytest.fixture
def opened(case: Case) -> Settings:
    """Settings of a store that was opened, so that its own directory is there."""
    return case.settings


def test_second_recovery_removes_what_the_first_one_met(opened: Settings) -> None:
    """The first leaves it for a transfer that goes on after a reboot; the third finds nothing."""
    paths = leftovers(opened)

    assert sweep_transfers(opened.layout) == []
    assert all(path.exists() for path in paths)
    assert sorted(sweep_transfers(opened.layout)) == sorted(paths)
    assert not any(path.exists() for path in paths)
    assert sweep_transfers(opened.layout) == []
    assert not opened.layout.met_transfers.exists()


def test_file_that_changed_since_the_first_recovery_is_left_once_more(
    opened: Settings,
) -> None:
    """Somebody went on with it between the two."""
    changed, *others = leftovers(opened)
    sweep_transfers(opened.layout)
    os.utime(changed, (HOURS_AGO, HOURS_AGO))

    assert sorted(sweep_transfers(opened.layout)) == sorted(others)
    assert sweep_transfers(opened.layout) == [changed]


def test_file_of_a_transfer_under_way_is_spared_by_every_recovery(opened: Settings) -> None:
    """However long it takes."""
    *paths, foreign = leftovers(opened)
    with Locks(opened.layout).transfer(DIGEST):
        removed = [sweep_transfers(opened.layout) for _ in range(3)]

    assert removed == [[], [foreign], []]
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("note", [b"", b"no json", b"[1]", b'{"x": "y"}'])
def test_note_that_does_not_add_up_counts_as_none(note: bytes, opened: Settings) -> None:
    """Nothing is removed on its word."""
    paths = leftovers(opened)
    opened.layout.met_transfers.write_bytes(note)

    assert sweep_transfers(opened.layout) == []
    assert all(path.exists() for path in paths)
    met = json.loads(opened.layout.met_transfers.read_bytes())
    assert sorted(met) == sorted(map(str, paths))


def test_prune_removes_downloads_that_nobody_goes_on_with(case: Case) -> None:
    """A dry run shows them with what they take; younger ones stay."""
    young = leftovers(case.settings, Digest.of(b"young"))[0]
    paths = leftovers(case.settings)
    age(paths)

    plan = case.prune.plan()
    planned = {each.name: each.size for each in plan.objects if each.kind == "download"}
    assert planned == {str(path): 8192 for path in paths}
    result = case.prune.execute(plan)

    assert {each.name for each in result.removed} >= {str(path) for path in paths}
    assert not any(path.exists() for path in paths)
    assert young.exists()


def test_prune_leaves_a_download_that_is_gone_on_with_since_the_plan(case: Case) -> None:
    """By a process that works on it, or one that has written to it."""
    locked, touched = leftovers(case.settings)[0], leftovers(case.settings, Digest.of(b"y"))[0]
    age([locked, touched])
    plan = case.prune.plan()
    touched.write_bytes(b"more")

    with Locks(case.settings.layout).transfer(DIGEST):
        result = case.prune.execute(plan)

    assert {each.planned.name: each.reason for each in result.skipped} == {
        str(locked): "a transfer of its digest is under way",
        str(touched): "somebody went on with it since the plan was made",
    }
    assert locked.exists()
    assert touched.exists()


def test_prune_takes_no_path_from_a_plan(case: Case, tmp_path: Path) -> None:
    """A plan that was tampered with removes nothing outside the agents' directories."""
    (path, *_) = leftovers(case.settings)
    age([path])
    precious = tmp_path / "precious"
    precious.write_bytes(b"x")
    age([precious])
    plan = case.prune.plan(Selection())
    (planned,) = (each for each in plan.objects if each.kind == "download")

    case.prune.execute(replace(plan, objects=(replace(planned, name=str(precious)),)))

    assert precious.exists()
    assert path.exists()


def test_df_and_a_dry_run_show_interrupted_downloads(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a prune gives back is told from what is on its way; after it there is none."""
    on_its_way = leftovers(case.settings, Digest.of(b"young"))
    age(leftovers(case.settings))
    cas = Cas(case.settings, tmp_path, capsys)

    def reclaimable() -> dict[str, tuple[int, int]]:
        entries = json.loads(cas("--json", "df").out)["entries"]
        rows = [row for row in entries if row["part"] == "abandoned, prune removes it"]
        return {row["owner"]: (row["size"], row["objects"]) for row in rows}

    before = reclaimable()
    shown = cas("prune", "--dry-run").out
    assert cas("prune", "--force").status == 0

    # The file of nobody is both: made anew by the second call, and aged with its others.
    assert before == {"downloader": (3 * 8192, 3), "verifier": (2 * 8192, 2)}
    assert reclaimable() == {}
    assert shown.count(DIGEST.hex) >= 4
    for path in on_its_way[:4]:
        path.unlink()
    assert left_by(case) == NOTHING
