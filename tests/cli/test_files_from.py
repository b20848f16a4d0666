"""Names of files that come from a list."""

import os
from pathlib import Path

from cas.model.digest import Digest
from tests.cli.conftest import RunCas


def test_ingest_takes_names_from_a_list_alone(cas: RunCas, tmp_path: Path) -> None:
    """No FILE need be given beside it, and a name need not be text."""
    names = [b"plain", b"not-text-\xff"]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(name)
    listed = tmp_path / "list"
    listed.write_bytes(b"".join(bytes(tmp_path) + b"/" + name + b"\n" for name in names))

    result = cas("blob", "ingest", "--files-from", listed)

    assert (result.status, result.err) == (0, "")
    assert result.out.split() == [str(Digest.of(name)) for name in names]


def test_ingest_from_a_list_that_is_missing_is_not_found(cas: RunCas, tmp_path: Path) -> None:
    """As a missing file is."""
    result = cas("blob", "ingest", "--files-from", tmp_path / "missing")
    assert result.status == 3
    assert "[source-not-found]" in result.err


def test_ingest_from_a_list_with_zeros_is_a_usage_error(cas: RunCas, tmp_path: Path) -> None:
    """Such as find -print0 writes."""
    listed = tmp_path / "list"
    listed.write_bytes(b"one\0two\0")
    result = cas("blob", "ingest", "--files-from", listed)
    assert result.status == 2
    assert "one file name per line" in result.err
