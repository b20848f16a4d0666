"""Ctrl-C while a batch of files is stored."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import SourceNotFoundError
from cas.model.cancellation import Cancellation
from cas.model.settings import Settings
from cas.store.content.blobs import Blobs
from tests.support.interrupting import interrupt_wait
from tests.support.stores import assert_nothing_left, backing_for, own_blobs

pytestmark = pytest.mark.once  # what threads of ours do

_MIB = 1024 * 1024
_BEFORE = 3
_ALL = 256


def _feed(pipe: Path) -> int:
    """Write, interrupt the main thread on the way, and say how many MiB were taken."""
    with pipe.open("wb", buffering=0) as file:
        for count in range(_ALL):
            if count == _BEFORE:
                interrupt_wait()
            try:
                file.write(os.urandom(_MIB))
            except BrokenPipeError:
                return count
    return _ALL


def test_interrupt_while_the_last_file_is_stored_ends_it_at_once(
    containerd: Containerd, settings: Settings, tmp_path: Path
) -> None:
    """The file is not read to its end, and nothing of it is left."""
    backing = backing_for(containerd, settings)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        fed = pool.submit(_feed, pipe)
        with pytest.raises(KeyboardInterrupt):
            list(Blobs(backing).ingest_many([pipe]))
        assert fed.result() < _ALL
    assert own_blobs(backing) == set()
    assert_nothing_left(backing)


def test_failure_of_a_batch_leaves_the_flag_of_the_caller_alone(
    containerd: Containerd, settings: Settings, tmp_path: Path
) -> None:
    """A flag may be shared by operations that have nothing to do with each other."""
    cancel = Cancellation()
    missing = [tmp_path / str(number) for number in range(3)]
    with pytest.raises(SourceNotFoundError):
        list(Blobs(backing_for(containerd, settings)).ingest_many(missing, cancel=cancel))
    assert not cancel.is_set()
