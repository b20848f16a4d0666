"""The files of a container volume."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CorruptVolumeError
from cas.model.digest import ChainID, Digest
from cas.model.layout import Layout
from cas.model.volume_layers import FrozenLayer, VolumeHistory
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.volumes.records import (
    encode_files,
    encode_record,
    iter_records,
    read_record,
    read_snapshot_key,
)

_NAME = VolumeName.parse("7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#3")
_RECORD = VolumeRecord(
    name=_NAME,
    image="docker.io/library/busybox:latest",
    root_digest=Digest("a" * 64),
    manifest_digest=Digest("b" * 64),
    chain_id=ChainID("c" * 64),
    snapshot_key=str(_NAME),
    snapshotter="overlayfs",
    read_only=False,
    created=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
)

_LAYER = FrozenLayer("key/1", "base", "one", _RECORD.created, "key")
_WITH_SNAPSHOTS = replace(
    _RECORD,
    snapshot_key="key/4",
    history=VolumeHistory(
        parent="key/3",
        layers=(_LAYER, replace(_LAYER, key="key/3", parent="key/1", snapshot=None, moved_from=7)),
        next_number=5,
        moved_from=9,
        unused=True,
    ),
)


def _write(directory: Path, record: VolumeRecord, config: bytes) -> None:
    for name, data in encode_files(record, config).items():
        (directory / name).write_bytes(data)


@pytest.mark.parametrize(
    "record",
    [
        _RECORD,
        replace(_RECORD, chain_id=None, read_only=True),
        replace(_RECORD, snapshot_key="old-key", image='ünïcode \\ " name'),
        replace(_RECORD, created=datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2)))),
        _WITH_SNAPSHOTS,
    ],
)
def test_record_written_and_read_is_the_same(tmp_path: Path, record: VolumeRecord) -> None:
    """Nothing of a record gets lost."""
    _write(tmp_path, record, b"{}")
    assert read_record(tmp_path, _NAME) == record


def test_record_on_disk_has_the_documented_keys() -> None:
    """Other programs read the file."""
    document = json.loads(encode_record(_RECORD))
    assert document == {
        "format_version": 1,
        "name": str(_NAME),
        "image": "docker.io/library/busybox:latest",
        "root_digest": f"sha256:{'a' * 64}",
        "manifest_digest": f"sha256:{'b' * 64}",
        "chain_id": f"sha256:{'c' * 64}",
        "snapshot_key": str(_NAME),
        "snapshotter": "overlayfs",
        "read_only": False,
        "created": "2026-01-02T03:04:05.678901Z",
    }


def test_record_with_unknown_key_is_read(tmp_path: Path) -> None:
    """A later release may add keys without a new format."""
    document = json.loads(encode_record(_RECORD)) | {"later": {"deep": [1]}}
    (tmp_path / "volume.json").write_text(json.dumps(document))
    assert read_record(tmp_path, _NAME) == _RECORD


def _changed(**changes: object) -> Callable[[], bytes]:
    return lambda: json.dumps(json.loads(encode_record(_RECORD)) | changes).encode()


def _history(**changes: object) -> Callable[[], bytes]:
    document = json.loads(encode_record(_WITH_SNAPSHOTS))
    document["history"] |= changes
    return lambda: json.dumps(document).encode()


def _layer(**changes: object) -> Callable[[], bytes]:
    document = json.loads(encode_record(_WITH_SNAPSHOTS))
    document["history"]["layers"][0] |= changes
    return lambda: json.dumps(document).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: b"", "malformed"),
        (lambda: b"\xff\xfe", "malformed"),
        (lambda: b"[]", "malformed"),
        (lambda: encode_record(_RECORD)[:-20], "malformed"),
        (lambda: b" " * 300_000, "larger"),
        (_changed(name="7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#4"), "belongs to volume"),
        (_changed(name="x"), "malformed"),
        (_changed(format_version=2), "newer"),
        (_changed(format_version="1"), "malformed"),
        (_changed(root_digest="sha256:xyz"), "malformed"),
        (_changed(chain_id=5), "malformed"),
        (_changed(snapshot_key=""), "malformed"),
        (_changed(created="2026-01-02T03:04:05"), "malformed"),
        (_changed(created="yesterday"), "malformed"),
        (_changed(history=[]), "malformed"),
        (_history(next_number=-1), "malformed"),
        (_history(moved_from=-1), "malformed"),
        (_history(layers=[{}]), "malformed"),
        (_layer(snapshot="../x"), "malformed"),
        (_layer(key=""), "malformed"),
        (_layer(moved_from="../x"), "malformed"),
        (_layer(created="2026-01-02T03:04:05"), "malformed"),
    ],
)
def test_record_that_is_wrong_is_corrupt(
    tmp_path: Path, content: Callable[[], bytes], reason: str
) -> None:
    """Every wrong form is the one documented error, and it says what is wrong."""
    (tmp_path / "volume.json").write_bytes(content())
    with pytest.raises(CorruptVolumeError, match=reason):
        read_record(tmp_path, _NAME)


def test_record_that_is_missing_is_corrupt(tmp_path: Path) -> None:
    """A volume without a record cannot be used."""
    with pytest.raises(CorruptVolumeError, match="missing"):
        read_record(tmp_path, _NAME)


@given(content=st.binary(max_size=200))
def test_record_of_garbage_raises_only_corrupt(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """No content ends in another error."""
    directory = tmp_path_factory.mktemp("garbage")
    (directory / "volume.json").write_bytes(content)
    with pytest.raises(CorruptVolumeError):
        read_record(directory, _NAME)


@pytest.mark.parametrize(
    "config",
    [
        b'{"a":1,"b":[true,null,1.50,1e400,"\\u00e9\\n"]}',
        '{"ünïcode":"","big":123456789012345678901234567890}'.encode(),
        b'{"same":1,"same":2}',
    ],
)
def test_image_config_written_keeps_its_content(tmp_path: Path, config: bytes) -> None:
    """Only white space differs, so that numbers and doubled keys survive as they were."""
    _write(tmp_path, _RECORD, config)
    written = (tmp_path / "image-config.json").read_text()
    assert "".join(written.split()) == "".join(config.decode().split())
    assert written.startswith('{\n    "')


def test_snapshot_key_of_damaged_volume_falls_back(tmp_path: Path) -> None:
    """Record, then the converter's file, then the name."""
    assert read_snapshot_key(tmp_path, _NAME) == str(_NAME)
    (tmp_path / "snapshotid.txt").write_text("old-key")
    assert read_snapshot_key(tmp_path, _NAME) == "old-key"
    _write(tmp_path, replace(_RECORD, snapshot_key="recorded"), b"{}")
    assert read_snapshot_key(tmp_path, _NAME) == "recorded"


def test_iter_records_skips_unreadable_with_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One damaged volume does not hide the others."""
    layout = Layout(tmp_path)
    layout.volume(_NAME).mkdir(parents=True)
    _write(layout.volume(_NAME), _RECORD, b"{}")
    damaged = VolumeName(_NAME.uuid, 4)
    layout.volume(damaged).mkdir()
    assert list(iter_records(layout)) == [_RECORD]
    assert str(damaged) in caplog.text
