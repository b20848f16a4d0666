"""The datastore that is a directory."""

import os
from pathlib import Path

import pytest

from cas.datastores.opening import open_source
from cas.datastores.port import Validator
from cas.datastores.settings import SourceSettings
from cas.errors import ConfigError, SourceChangedError, SourceNotFoundError
from tests.support.fetching import BODY, Fetching


@pytest.fixture
def stick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the object in it."""
    directory = tmp_path_factory.mktemp("a stick")
    (directory / "sub").mkdir()
    (directory / "sub" / "blob").write_bytes(BODY)
    return directory


def _settings(directory: Path) -> SourceSettings:
    return SourceSettings(url=directory.as_uri())


def test_file_is_fetched_whole(stick: Path, fetching: Fetching) -> None:
    """Spaces in the directory's name included."""
    fetched = fetching(_settings(stick), path="sub/blob", size=len(BODY))

    assert fetching.file.read_bytes() == BODY
    assert fetched.received == len(BODY)
    assert fetching.names() == ["file"]


def test_file_is_read_from_its_middle_only_if_it_is_the_same(stick: Path) -> None:
    """Its inode, time and size are the proof."""
    with open_source(_settings(stick)) as source:
        remote = source.stat("sub/blob")
        assert remote.size == len(BODY)
        with source.open("sub/blob", offset=5, validator=remote.validator) as download:
            assert b"".join(download.chunks) == BODY[5:]
        os.utime(stick / "sub" / "blob", ns=(1, 1))  # the kernel's clock may not have ticked
        with (
            pytest.raises(SourceChangedError),
            source.open("sub/blob", offset=5, validator=remote.validator),
        ):
            pass
        with (
            pytest.raises(SourceChangedError),
            source.open("sub/blob", offset=5, validator=Validator("etag", '"x"')),
        ):
            pass


def test_file_that_is_changed_while_it_is_read_is_not_believed(stick: Path) -> None:
    """Half of the old and half of the new is neither."""
    with open_source(_settings(stick)) as source, source.open("sub/blob") as download:
        next(download.chunks)
        os.truncate(stick / "sub" / "blob", 10)

        with pytest.raises(SourceChangedError):
            list(download.chunks)


@pytest.mark.parametrize("path", ["absent", "sub", "", "pipe"])
def test_what_is_no_file_is_not_found(stick: Path, path: str) -> None:
    """A directory or pipe is not read, and nobody waits for it."""
    os.mkfifo(stick / "pipe")

    with open_source(_settings(stick)) as source, pytest.raises(SourceNotFoundError):
        source.stat(path)


@pytest.mark.parametrize("path", ["../secret", "sub/../../secret", "/.."])
def test_path_that_leads_out_of_the_directory_is_refused(stick: Path, path: str) -> None:
    """A datastore is a fence."""
    (stick.parent / "secret").write_bytes(b"")

    with open_source(_settings(stick)) as source, pytest.raises(ConfigError):
        source.stat(path)
