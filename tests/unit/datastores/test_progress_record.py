"""What is remembered of a transfer."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cas.datastores.port import Validator
from cas.datastores.progress_record import ProgressRecord, read_record, write_record
from cas.errors import StorageError

RECORD = ProgressRecord(
    source="https://host blob",
    digest=f"sha256:{'0' * 64}",
    validator=Validator("etag", '"\u00e9"'),
    size=10,
    synced=5,
)


def test_record_that_was_written_is_read(tmp_path: Path) -> None:
    """A later one takes its place; nothing else is left."""
    path = tmp_path / "record"
    write_record(path, RECORD)
    write_record(path, RECORD)

    assert read_record(path) == RECORD
    assert list(tmp_path.iterdir()) == [path]


def test_record_that_does_not_exist_is_none(tmp_path: Path) -> None:
    """A transfer begins without one."""
    assert read_record(tmp_path / "absent") is None


def test_record_with_any_byte_changed_is_none(tmp_path: Path) -> None:
    """One bit of a medium must not make unsynced bytes trusted."""
    path = tmp_path / "record"
    write_record(path, RECORD)
    data = path.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        path.write_bytes(changed)
        assert read_record(path) in (None, RECORD), position


def test_record_that_was_cut_is_none(tmp_path: Path) -> None:
    """At any length."""
    path = tmp_path / "record"
    write_record(path, RECORD)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        assert read_record(path) is None, size


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=500))
def test_record_of_garbage_is_none(tmp_path: Path, data: bytes) -> None:
    """Whatever a power cut made of it."""
    path = tmp_path / "garbage"
    path.write_bytes(data)

    assert read_record(path) is None


def test_record_that_is_a_link_is_an_error(tmp_path: Path) -> None:
    """Nobody but us makes names there."""
    (tmp_path / "link").symlink_to("elsewhere")

    with pytest.raises(StorageError):
        read_record(tmp_path / "link")
