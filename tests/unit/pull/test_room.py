"""What becomes of a promise of room whose ledger cannot be kept."""

import logging
from pathlib import Path

import pytest

from cas.errors import StorageError
from cas.model.layout import Layout
from cas.model.limits import Limits
from cas.pull.room import Room
from cas.store.space import Space


class Stub:
    """The part of a store that the ledger uses."""

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(directory)
        self.limits = Limits()
        self.blobs_directory: Path | None = None


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    stub = Stub(tmp_path)
    stub.layout.case.mkdir(parents=True)
    return stub


def lose_ledger(stub: Stub) -> None:
    """Nothing can be written to it any more."""
    for path in stub.layout.reservations.iterdir():
        path.unlink()


def test_ledger_that_cannot_be_kept_is_logged_where_the_work_goes_on(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, however many bytes come after it."""
    caplog.set_level(logging.WARNING, logger="cas.pull.room")
    room = Room(Space(stub))

    with room.of(1000, "test"):
        lose_ledger(stub)
        room.use(10)
        room.use(10)

    assert caplog.text.count("space ledger not kept") == 1


def test_ledger_that_cannot_be_kept_is_the_error_of_work_that_was_stopped_for_it(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    """And is not logged as well."""
    room = Room(Space(stub))

    def work() -> None:
        with room.of(1000, "test"):
            lose_ledger(stub)
            room.use(10)
            room.stop.check()

    with pytest.raises(StorageError):
        work()

    assert caplog.text == ""
