"""A transfer that was interrupted goes on where it is safe to, and nowhere else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cas.datastores.fetch import Fetched, discard
from cas.datastores.terms import FetchPolicy
from cas.errors import (
    AuthenticationError,
    CasError,
    InterruptedOperationError,
    LockTimeoutError,
    NoSpaceError,
    SourceChangedError,
    SourceProtocolError,
    SourceStalledError,
    SourceUnavailableError,
    StorageError,
)
from cas.fsops.effects import Effect, observed
from cas.fsops.locks import FileLock
from cas.model.limits import CHUNK_BYTES
from cas.model.progress import Progress
from tests.support.fetching import BODY, MIB, Fetching
from tests.support.hostile_server import (
    DATE,
    OLD,
    HostileServer,
    Line,
    Request,
    answer,
    resource,
)
from tests.support.loopfs import LoopFileSystem
from tests.support.waiting import wait_for

OTHER = BODY[::-1]
_SLOW_SYNC_SECONDS = 0.1
ALL_BUT_NOTHING = len(BODY) + 64 * 1024
"""Bytes a server may send for BODY with headers, if none is sent twice."""


class Killed(BaseException):
    """Stands for the end of a process."""


def test_transfer_cut_again_and_again_goes_on_where_it_was(
    server: HostileServer, fetching: Fetching
) -> None:
    """More cuts than attempts do not matter while each attempt brings something."""
    server.on("/blob", resource(BODY, cut_after=256 * 1024))

    fetched = fetching(server.url, size=len(BODY))

    assert fetching.file.read_bytes() == BODY
    assert fetched == Fetched(len(BODY), received=len(BODY), kept=0)
    assert fetching.names() == ["file"]
    first, second, *_ = server.asked("/blob")
    assert "range" not in first.headers
    assert second.headers["range"] == f"bytes={256 * 1024}-"
    assert second.headers["if-match"] == '"one"'
    assert all(request.headers["accept-encoding"] == "identity" for request in server.requests)
    assert server.sent["/blob"] < ALL_BUT_NOTHING


def test_later_call_goes_on_with_what_a_failed_one_left(
    server: HostileServer, fetching: Fetching
) -> None:
    """What came before the attempts ran out is kept, durable and noted."""
    server.on("/blob", resource(BODY, cut_after=MIB), answer(503))
    with pytest.raises(SourceUnavailableError):
        fetching(server.url)
    assert fetching.names() == ["file.partial", "file.progress"]

    server.on("/blob", resource(BODY))
    fetched = fetching(server.url)

    assert fetching.file.read_bytes() == BODY
    assert fetched.kept == MIB
    assert fetched.received == len(BODY) - MIB
    assert fetching.names() == ["file"]


def test_object_with_an_old_date_is_resumed_by_its_date(
    server: HostileServer, fetching: Fetching
) -> None:
    """Last-Modified proves enough when it is older than the answer."""
    server.on(
        "/blob",
        resource(BODY, etag=None, modified=OLD, cut_after=MIB),
        resource(BODY, etag=None, modified=OLD),
    )

    fetched = fetching(server.url)

    assert server.asked("/blob")[1].headers["if-unmodified-since"] == OLD
    assert fetched.received == len(BODY)


@pytest.mark.parametrize(
    "second",
    [
        resource(OTHER, etag='"two"'),
        resource(OTHER, etag='"two"', conditions=False),
        resource(OTHER, etag='"two"', ranges=False, conditions=False),
        answer(416, {"Content-Range": "bytes */5"}),
    ],
    ids=["precondition-failed", "part-of-another", "whole-of-another", "out-of-range"],
)
def test_object_that_was_replaced_between_attempts_is_fetched_from_its_start(
    server: HostileServer, fetching: Fetching, second: Callable[[Request, Line], None]
) -> None:
    """However the server shows that it is another one, no byte of the first stays."""
    server.on("/blob", resource(BODY, cut_after=MIB), second, resource(OTHER, etag='"two"'))

    fetching(server.url)

    assert fetching.file.read_bytes() == OTHER
    assert fetching.names() == ["file"]


@pytest.mark.parametrize(
    "second",
    [
        resource(BODY, ranges=False),
        resource(BODY, headers={"ETag": ""}, conditions=False),
        resource(BODY, etag='W/"one"', conditions=False),
    ],
    ids=["range-ignored", "part-without-validator", "part-with-weak-validator"],
)
def test_server_that_does_not_prove_the_rest_is_asked_for_the_whole(
    server: HostileServer, fetching: Fetching, second: Callable[[Request, Line], None]
) -> None:
    """A part that may be of something else is not appended."""
    server.on("/blob", resource(BODY, cut_after=MIB), second, resource(BODY))

    fetched = fetching(server.url)

    assert fetching.file.read_bytes() == BODY
    assert fetched.received == len(BODY) + MIB


@pytest.mark.parametrize(
    "first",
    [
        resource(BODY, etag=None, cut_after=MIB),
        resource(BODY, etag='W/"one"', cut_after=MIB),
        resource(BODY, etag="one", cut_after=MIB),
        resource(BODY, etag=None, modified=DATE, cut_after=MIB),
        resource(BODY, etag=None, modified="yesterday", cut_after=MIB),
    ],
    ids=["none", "weak", "unquoted", "date-of-this-second", "no-date"],
)
def test_object_without_a_validator_that_proves_anything_is_fetched_from_its_start(
    server: HostileServer, fetching: Fetching, first: Callable[[Request, Line], None]
) -> None:
    """Nothing is resumed on a guess."""
    server.on("/blob", first, resource(BODY))

    fetching(server.url)

    assert "range" not in server.asked("/blob")[1].headers
    assert fetching.file.read_bytes() == BODY


def test_object_that_changes_at_every_attempt_ends_the_transfer(
    server: HostileServer, fetching: Fetching
) -> None:
    """Beginning anew is bounded as well."""
    count = iter(range(1000))

    def changing(request: Request, line: Line) -> None:
        etag = f'"{next(count)}"'
        resource(BODY, etag=etag, conditions=False, cut_after=MIB)(request, line)

    server.on("/blob", changing)

    with pytest.raises(SourceChangedError):
        fetching(server.url)

    assert fetching.names() == []
    assert len(server.requests) <= 3 * fetching.policy.restarts


@pytest.mark.parametrize(
    "part",
    ["bytes 0-3145727/3145728", "bytes 1048577-3145727/3145728", "bytes 1048576-1048577/3145728",
     "bytes 1048576-3145727/3145729", "items 1-2/3", ""],
)  # fmt: skip
def test_part_that_is_not_the_rest_is_refused_and_leaves_nothing(
    server: HostileServer, fetching: Fetching, part: str
) -> None:
    """The answer must be the bytes that were asked for, to the end."""
    server.on("/blob", resource(BODY, cut_after=MIB), resource(BODY, part=part or " "))

    with pytest.raises(SourceProtocolError):
        fetching(server.url)

    assert fetching.names() == []


def test_slow_drip_is_given_up_as_stalled(server: HostileServer, fetching: Fetching) -> None:
    """Bytes that come, but hardly, do not hold a transfer for ever."""
    fetching.time.tick = 10.0
    server.on("/blob", resource(BODY, etag=None, piece=64))

    with pytest.raises(SourceStalledError):
        fetching(server.url)

    assert fetching.names() == []


@pytest.mark.parametrize("kind", ["no-record", "torn-record", "short-file", "longer-file", "other"])
def test_leftovers_that_do_not_add_up_are_not_trusted(
    server: HostileServer, fetching: Fetching, kind: str
) -> None:
    """Whatever a power cut made of file and record, the result is the object."""
    server.on("/blob", resource(BODY, cut_after=MIB), answer(503))
    with pytest.raises(SourceUnavailableError):
        fetching(server.url)
    partial = fetching.directory / "file.partial"
    record = fetching.directory / "file.progress"
    match kind:
        case "no-record":
            record.unlink()
        case "torn-record":
            record.write_bytes(
                record.read_bytes().replace(b'"synced":1048576', b'"synced":1048577')
            )
        case "short-file":
            partial.write_bytes(BODY[: MIB - 1])
        case "longer-file":
            partial.write_bytes(BODY[:MIB] + b"never synced")
        case "other":
            record.write_bytes(b"\0" * 200_000)

    server.on("/blob", resource(BODY))
    fetched = fetching(server.url)

    assert fetching.file.read_bytes() == BODY
    assert fetched.kept == (MIB if kind == "longer-file" else 0)
    assert fetching.names() == ["file"]


def test_partial_file_of_another_source_is_not_gone_on_with(
    server: HostileServer, other_server: HostileServer, fetching: Fetching
) -> None:
    """The same validator of another place means nothing."""
    server.on("/blob", resource(OTHER, cut_after=MIB), answer(503))
    with pytest.raises(SourceUnavailableError):
        fetching(server.url)

    other_server.on("/blob", resource(BODY))
    fetching(other_server.url)

    assert "range" not in other_server.requests[0].headers
    assert fetching.file.read_bytes() == BODY


def test_renewed_signature_in_the_url_goes_on_with_the_same_transfer(
    server: HostileServer, fetching: Fetching
) -> None:
    """Signatures expire; what they sign stays the same place."""
    server.on("/blob", resource(BODY, cut_after=MIB), answer(403))
    with pytest.raises(AuthenticationError) as caught:
        fetching(server.url + "?sig=first", path="blob")
    assert "first" not in str(caught.value)

    server.on("/blob", resource(BODY))
    fetched = fetching(server.url + "?sig=second", path="blob")

    assert fetched.kept == MIB
    assert server.requests[-1].target == "/blob?sig=second"


def test_destination_that_exists_is_not_fetched_again(
    server: HostileServer, fetching: Fetching
) -> None:
    """Twice is once, and what a kill after the last rename left goes."""
    fetching.file.write_bytes(BODY)
    (fetching.directory / "file.progress").write_bytes(b"old")

    fetched = fetching(server.url)

    assert fetched == Fetched(len(BODY), received=0, kept=len(BODY))
    assert server.requests == []
    assert fetching.names() == ["file"]


def test_second_caller_for_one_destination_is_refused(
    server: HostileServer, fetching: Fetching
) -> None:
    """Two writers in one file would be no file."""
    server.on("/blob", resource(BODY))

    with FileLock(fetching.directory / "file.partial"), pytest.raises(LockTimeoutError):
        fetching(server.url)


def test_discard_removes_everything_of_a_transfer(
    server: HostileServer, fetching: Fetching
) -> None:
    """For a caller who wants no more of it; twice is once."""
    server.on("/blob", resource(BODY, cut_after=MIB), answer(503))
    with pytest.raises(SourceUnavailableError):
        fetching(server.url)
    fetching.file.write_bytes(b"")

    discard(fetching.file)
    discard(fetching.file)

    assert fetching.names() == []


def test_cancelled_transfer_stops_though_the_server_is_silent_and_can_go_on(
    server: HostileServer, fetching: Fetching
) -> None:
    """The read that waits is ended; what came before is kept."""

    partial = fetching.directory / "file.partial"

    def cancel(line: Line) -> None:
        wait_for(lambda: partial.exists() and partial.stat().st_size == MIB)
        fetching.cancellation.set()
        line.hold()

    server.on("/blob", resource(BODY, cut_after=MIB, then=cancel))
    settings = fetching.settings(server.url)
    patient = replace(settings, transport=replace(settings.transport, idle_seconds=60))

    with pytest.raises(InterruptedOperationError):
        fetching(patient)

    fetched = _again(server, fetching)
    assert fetched.kept == MIB


def _again(server: HostileServer, fetching: Fetching) -> Fetched:
    server.on("/blob", resource(BODY))
    later = Fetching(fetching.directory)
    fetched = later(server.url)
    assert later.file.read_bytes() == BODY
    assert later.names() == ["file"]
    return fetched


def test_cancelled_pause_ends_at_once(server: HostileServer, fetching: Fetching) -> None:
    """Nobody waits for a server that was asked to be left alone."""
    server.on("/blob", answer(503))
    fetching.time.cancels = fetching.cancellation

    with pytest.raises(InterruptedOperationError):
        fetching(server.url)

    assert len(server.requests) == 1


@pytest.mark.slow
def test_transfer_killed_at_any_moment_ends_right_when_it_is_run_again(
    server: HostileServer, tmp_path: Path
) -> None:
    """Before each change of the file system in turn; at most the unsynced tail comes twice."""
    server.on("/blob", resource(BODY))
    for moment in range(1000):
        directory = tmp_path / str(moment)
        directory.mkdir()
        fetching = Fetching(directory)
        fetching.policy = FetchPolicy(sync_bytes=MIB)
        if not _is_killed_at(moment, fetching, server.url):
            break
        fetched = fetching(server.url)
        assert fetching.file.read_bytes() == BODY
        assert fetching.names() == ["file"] or _only_temporaries(fetching.names())
        assert fetched.kept + fetched.received == len(BODY)
    assert moment > 15


def _only_temporaries(names: list[str]) -> bool:
    return [name for name in names if not name.endswith(".cas-temporary")] == ["file"]


def _is_killed_at(moment: int, fetching: Fetching, url: str) -> bool:
    """Let every change from the k-th on fail, as after the end of the process."""
    seen = 0
    guard = threading.Lock()

    def kill(kind: Effect, path: str) -> None:
        nonlocal seen
        with guard:
            seen += 1
            if seen > moment:
                raise Killed

    with observed(kill):
        try:
            fetching(url)
        except Killed:
            return True
    return False


def test_full_disk_stops_the_transfer_which_goes_on_when_there_is_room(
    server: HostileServer, fetching: Fetching, loop_ext4: Callable[[int], LoopFileSystem]
) -> None:
    """No retry while there is no room, and nothing is fetched twice."""
    file_system = loop_ext4(8 * MIB)
    small = Fetching(file_system.path)
    file_system.fill(leave=2 * MIB)
    server.on("/blob", resource(BODY))

    with pytest.raises(NoSpaceError):
        small(server.url)
    assert len(server.requests) == 1
    assert not small.file.exists()

    file_system.make_room()
    fetched = small(server.url)
    assert small.file.read_bytes() == BODY
    assert fetched.kept > MIB
    assert fetched.received == len(BODY) - fetched.kept


def test_power_cut_costs_no_more_than_what_was_not_synced(
    server: HostileServer, loop_ext4: Callable[[int], LoopFileSystem]
) -> None:
    """The note is never ahead of the data, and what it speaks of is not fetched again."""
    file_system = loop_ext4(32 * MIB)
    fetching = Fetching(file_system.path)
    noted = file_system.path / "file.progress"

    def cut_power(line: Line) -> None:
        wait_for(noted.exists)
        first = noted.read_bytes()
        line.send(BODY[MIB : 2 * MIB])
        rest = iter(range(2 * MIB, 3 * MIB, 64))

        def is_noted_again() -> bool:  # so that the first is durable for certain
            at = next(rest)  # a checkpoint begins with a chunk
            line.send(BODY[at : at + 64])
            return noted.read_bytes() != first

        wait_for(is_noted_again)
        file_system.power_cut()

    server.on("/blob", resource(BODY, cut_after=MIB, then=cut_power), resource(BODY))
    with pytest.raises(CasError):
        fetching(server.url)
    file_system.remount()

    fetched = fetching(server.url)

    assert fetching.file.read_bytes() == BODY
    assert fetched.kept >= fetching.policy.sync_bytes
    assert fetched.kept + fetched.received == len(BODY)


def test_writer_waits_for_a_slow_disk_rather_than_leave_more_unsynced(
    server: HostileServer, fetching: Fetching
) -> None:
    """However fast the source is, a kill costs twice ``sync_bytes`` and a chunk at most."""
    server.on("/blob", resource(BODY))
    partial = fetching.directory / "file.partial"
    overrun = threading.Event()
    durable = 0

    def look(kind: Effect, path: str) -> None:
        nonlocal durable
        if path != str(partial) or not partial.exists():
            return
        size = partial.stat().st_size
        if kind is Effect.FSYNC:
            overrun.wait(_SLOW_SYNC_SECONDS)
            durable = size
        elif size - durable > most:
            overrun.set()

    fetching.policy = replace(fetching.policy, sync_bytes=128 * 1024)
    most = 2 * fetching.policy.sync_bytes + CHUNK_BYTES
    with observed(look):
        fetching(server.url)

    assert fetching.file.read_bytes() == BODY
    assert not overrun.is_set()


def test_failing_disk_ends_the_transfer_without_trust_in_what_came(
    server: HostileServer, fetching: Fetching
) -> None:
    """After a failed sync the bytes are gone, whatever a second sync says."""
    server.on("/blob", resource(BODY))

    def fail(kind: Effect, path: str) -> None:
        if kind is Effect.FSYNC and path.endswith(".partial"):
            raise OSError(5, "Input/output error")

    with observed(fail), pytest.raises(StorageError):
        fetching(server.url)

    assert fetching.names() == []


class _Watched(Progress):
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        self.calls.append(("start", total))

    def advance(self, action: str, item: str, amount: int) -> None:
        self.calls.append(("advance", amount))

    def finish(self, action: str, item: str) -> None:
        self.calls.append(("finish",))


def test_progress_of_a_resumed_transfer_adds_up_to_the_object(
    server: HostileServer, fetching: Fetching
) -> None:
    """What was there counts as done from the beginning."""
    server.on("/blob", resource(BODY, cut_after=MIB), answer(503))
    with pytest.raises(SourceUnavailableError):
        fetching(server.url)
    server.on("/blob", resource(BODY))
    progress = _Watched()
    fetching.progress = progress

    fetching(server.url)

    assert progress.calls[0] == ("start", len(BODY))
    assert progress.calls[1] == ("advance", MIB)
    assert progress.calls[-1] == ("finish",)
    assert sum(int(str(call[1])) for call in progress.calls if call[0] == "advance") == len(BODY)


class _Ledger:
    """Promises up to ``free`` bytes less those used, and remembers what was asked."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.asked: list[int] = []
        self.used = 0
        self.held = 0

    @contextmanager
    def reserve(self, size: int, what: str, /) -> Iterator["_Ledger"]:
        self.asked.append(size)
        if size > self.free - self.used:
            raise NoSpaceError(f"{what} needs {size} bytes")
        self.held += 1
        try:
            yield self
        finally:
            self.held -= 1

    def consume(self, amount: int, /) -> None:
        self.used += amount


@pytest.mark.parametrize("known_by", ["caller", "source"])
def test_room_is_promised_before_the_first_byte(
    server: HostileServer, fetching: Fetching, known_by: str
) -> None:
    """Without it nothing is read, retried or left."""
    server.on("/blob", resource(BODY))
    ledger = _Ledger(len(BODY) - 1)
    fetching.room = ledger

    with pytest.raises(NoSpaceError, match=r"download of sha256:.* needs 3145728"):
        fetching(server.url, size=len(BODY) if known_by == "caller" else None)

    assert len(server.requests) == (0 if known_by == "caller" else 1)
    assert ledger.used == 0
    assert fetching.time.pauses == []
    assert fetching.names() == []


def test_room_is_promised_for_what_is_missing_and_given_back(
    server: HostileServer, fetching: Fetching
) -> None:
    """What lies there already needs none."""
    server.on("/blob", resource(BODY, cut_after=MIB), answer(503))
    with pytest.raises(SourceUnavailableError):
        fetching(server.url)
    server.on("/blob", resource(BODY))
    ledger = _Ledger(10 * MIB)
    fetching.room = ledger

    fetching(server.url, size=len(BODY))

    assert ledger.asked == [len(BODY) - MIB]
    assert ledger.used == len(BODY) - MIB
    assert ledger.held == 0


def test_room_for_an_object_of_unknown_size_is_promised_in_steps(
    server: HostileServer, fetching: Fetching
) -> None:
    """A step that finds none ends the transfer; the last may be smaller than others."""
    server.on("/blob", resource(BODY, length=-1))
    ledger = _Ledger(MIB)
    fetching.room = ledger

    with pytest.raises(NoSpaceError):
        fetching(server.url)

    assert 0 < ledger.used <= MIB
    fetching.room = ledger = _Ledger(len(BODY))
    fetching(server.url)
    assert fetching.file.read_bytes() == BODY
    assert ledger.held == 0
    fetching.file.unlink()
    fetching.room = ledger = _Ledger(100 * MIB)
    fetching(server.url)
    assert len(ledger.asked) == 1
    assert ledger.held == 0
