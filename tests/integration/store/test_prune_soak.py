"""Work goes on while prune runs again and again: nothing fails and nothing needed is lost."""

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from cas.store.account.inventory import OtherContent
from cas.store.check.check import Check
from cas.store.content.blobs import Blobs
from cas.store.prune.prune import Prune
from cas.store.prune.selection import parse_selection
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import build_image
from tests.support.layers import file
from tests.support.stores import utc_now
from tests.support.volumes import Store, add_image, volume_name

pytestmark = pytest.mark.slow

_ROUNDS = 12
_FEWEST_PRUNES = 3


def _import_and_prepare(store: Store, place: Path, round_: int, shared: bytes) -> None:
    layers = [[file("shared", shared)], [file("own", secrets.token_bytes(20_000))]]
    image = build_image(layers=layers).named(f"example.com/kept/{round_}:1")
    store.images.import_archive(image.write_oci_tar(place / f"{round_}.tar"))
    store.volumes.prepare(volume_name(), image.name)


def _ingest(store: Store, place: Path, round_: int) -> None:
    path = place / f"blob{round_}"
    path.write_bytes(secrets.token_bytes(2_000_000 if round_ % 2 else 2_000))
    taken = Blobs(store.backing).ingest(path)
    assert b"".join(store.backing.content.read(taken.digest)) == path.read_bytes()


def _come_and_go(store: Store, round_: int, shared: bytes) -> None:
    """An image that prune may take at any moment, sharing a layer with those it may not."""
    layers = [[file("shared", shared)], [file("own", b"%d" % round_)]]
    add_image(store, build_image(layers=layers).named(f"example.com/gone/{round_}:1"))


def test_prune_in_a_loop_disturbs_no_import_ingest_or_prepare(
    store: Store, others: OtherContent, tmp_path: Path
) -> None:
    """No operation fails for the prune beside it, and the store is whole at the end."""
    shared = secrets.token_bytes(50_000)
    done = threading.Event()
    prune = Prune(store.backing, others=others)

    def prune_on() -> None:
        count = 0
        while not done.is_set() or count < _FEWEST_PRUNES:
            selection = parse_selection(["reference=example.com/gone/*"], now=utc_now())
            prune.execute(prune.plan(selection))
            count += 1

    def repeat(work: Callable[[int], None]) -> None:
        for round_ in range(_ROUNDS):
            work(round_)

    with ThreadPoolExecutor(4) as threads:
        pruning = threads.submit(prune_on)
        working: list[Future[None]] = [
            threads.submit(repeat, lambda n: _import_and_prepare(store, tmp_path, n, shared)),
            threads.submit(repeat, lambda n: _ingest(store, tmp_path, n)),
            threads.submit(repeat, lambda n: _come_and_go(store, n, shared)),
        ]
        try:
            for future in working:
                future.result()
        finally:
            done.set()
        pruning.result()
    check = Check(
        store.backing,
        platform=store.images.platform,
        judge=store.volumes.iter_volumes,
        others=others,
    )
    assert list(check.run(read_data=True)) == []
    names = {record.name for record in store.backing.images.iter_images()}
    assert names >= {f"example.com/kept/{number}:1" for number in range(_ROUNDS)}
    assert sum(1 for _ in store.volumes.iter_volumes()) == _ROUNDS


def test_check_beside_running_work_reports_nothing(
    store: Store, others: OtherContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in the middle of something is not taken for damage."""
    # A machine that is busy removes in its own time what was collected.
    monkeypatch.setattr("cas.store.check.leftovers._SETTLING_SECONDS", WAIT_SECONDS)
    done = threading.Event()
    check = Check(
        store.backing,
        platform=store.images.platform,
        judge=store.volumes.iter_volumes,
        others=others,
    )

    def check_on() -> list[object]:
        found: list[object] = []
        while not done.is_set():
            found.extend(check.run(read_data=True))
        return found

    def work(round_: int) -> None:
        _import_and_prepare(store, tmp_path, round_, b"shared")
        _ingest(store, tmp_path, round_)
        for status in store.volumes.iter_volumes():
            store.volumes.remove(status.name)
        for image in store.images.iter_images():
            store.images.remove(image.name)

    with ThreadPoolExecutor(1) as threads:
        checking = threads.submit(check_on)
        try:
            for round_ in range(_ROUNDS // 2):
                work(round_)
        finally:
            done.set()
        assert checking.result() == []
