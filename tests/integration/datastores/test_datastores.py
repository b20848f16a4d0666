"""The same promises at every kind of datastore, served by real servers."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cas.datastores.opening import open_source
from cas.datastores.port import Validator
from cas.datastores.settings import encode_settings
from cas.errors import (
    AuthenticationError,
    ConflictError,
    InterruptedOperationError,
    SourceChangedError,
    SourceNotFoundError,
    SourceUnavailableError,
)
from tests.support.datastores import Datastore
from tests.support.fetching import BODY, MIB, Fetching

LATE_IMPORTS = """
import sys
from pathlib import Path
from cas.datastores.fetch import fetch
from cas.datastores.opening import open_source
from cas.datastores.settings import decode_settings
from cas.datastores.terms import Wanted
from cas.model.digest import Digest

with open_source(decode_settings(sys.stdin.buffer.read())) as source:
    before = set(sys.modules)
    fetch(source, Wanted(path=sys.argv[1], digest=Digest.of(b"")), Path(sys.argv[2]))
    print(*sorted(set(sys.modules) - before))
"""

KINDS = ("https_store", "s3_store", "azure_store", "gcs_store", "sftp_store")


@pytest.fixture(params=KINDS)
def datastore(request: pytest.FixtureRequest) -> Iterator[Datastore]:
    """Each kind in turn, with the object in it as it was, whatever the test did."""
    datastore: Datastore = request.getfixturevalue(request.param)
    yield datastore
    datastore.replace(BODY)


def test_object_is_fetched_whole(datastore: Datastore, fetching: Fetching) -> None:
    """Bytes, size and nothing beside the file; the name has a space in it."""
    fetched = fetching(datastore.settings, path=datastore.path, size=len(BODY))

    assert fetching.file.read_bytes() == BODY
    assert fetched.received == len(BODY)
    assert fetching.names() == ["file"]


def test_object_is_described(datastore: Datastore) -> None:
    """Its size, and what proves that it is the same; the same from reading it."""
    with open_source(datastore.settings) as source:
        remote = source.stat(datastore.path)
        with source.open(datastore.path) as download:
            assert download.remote.size == len(BODY)
            first = next(download.chunks)

    assert remote.size == len(BODY)
    assert 0 < len(first) <= MIB


def test_object_is_read_from_its_middle_and_only_if_it_is_the_same(datastore: Datastore) -> None:
    """The validator of the first answer goes with the second question."""
    with open_source(datastore.settings) as source:
        with source.open(datastore.path) as download:
            validator = download.remote.validator
        assert validator is not None
        with source.open(datastore.path, offset=MIB + 1, validator=validator) as download:
            assert b"".join(download.chunks) == BODY[MIB + 1 :]
            assert download.remote.size in (None, len(BODY))

        datastore.replace(BODY + b"more")
        with (
            pytest.raises(SourceChangedError),
            source.open(datastore.path, offset=MIB + 1, validator=validator),
        ):
            pass


def test_transfer_that_was_stopped_goes_on_where_it_was(
    datastore: Datastore, fetching: Fetching
) -> None:
    """No byte that is on the disk is asked for again."""

    class Stop:
        def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None: ...

        def advance(self, action: str, item: str, amount: int) -> None:
            self.done = getattr(self, "done", 0) + amount
            if self.done >= MIB:
                fetching.cancellation.set()

        def finish(self, action: str, item: str) -> None: ...

    fetching.progress = Stop()
    with pytest.raises(InterruptedOperationError):
        fetching(datastore.settings, path=datastore.path)

    later = Fetching(fetching.directory)
    fetched = later(datastore.settings, path=datastore.path)

    assert later.file.read_bytes() == BODY
    assert fetched.kept >= MIB
    assert fetched.kept + fetched.received == len(BODY)


def test_object_that_does_not_exist_is_not_found(datastore: Datastore, fetching: Fetching) -> None:
    """No retry, nothing left."""
    with pytest.raises(SourceNotFoundError):
        fetching(datastore.settings, path="absent")

    assert fetching.time.pauses == []
    assert fetching.names() == []
    with open_source(datastore.settings) as source, pytest.raises(SourceNotFoundError):
        source.stat("absent")


def test_credentials_that_are_not_accepted_are_an_error_that_does_not_show_them(
    datastore: Datastore, fetching: Fetching
) -> None:
    """Where the server looks at them at all."""
    if datastore.refused is None:
        return
    with pytest.raises(AuthenticationError) as caught:
        fetching(datastore.refused, path=datastore.path)

    password = datastore.refused.credentials.password.reveal()
    assert not password or password not in str(caught.value.as_document())
    assert fetching.time.pauses == []
    assert fetching.names() == []


def test_server_that_is_not_there_is_unavailable(datastore: Datastore, fetching: Fetching) -> None:
    """After the attempts that a network deserves."""
    settings = datastore.settings
    address = settings.endpoint or settings.url
    port = address.partition("127.0.0.1:")[2].partition("/")[0]
    gone = replace(
        settings,
        endpoint=settings.endpoint.replace(port, "1"),
        url=settings.url.replace(port, "1"),
    )

    with pytest.raises(SourceUnavailableError):
        fetching(gone, path=datastore.path)

    assert len(fetching.time.pauses) == fetching.policy.retry.attempts - 1
    assert fetching.names() == []


def test_validator_of_another_kind_of_datastore_proves_nothing(datastore: Datastore) -> None:
    """It is refused before any byte is read."""
    with (
        open_source(datastore.settings) as source,
        pytest.raises(ConflictError),
        source.open(datastore.path, offset=1, validator=Validator("another", "x")),
    ):
        pass


def test_datastore_that_is_open_loads_no_further_module(
    datastore: Datastore, fetching: Fetching
) -> None:
    """A confined process opens it first and gives up reading then."""
    done = subprocess.run(
        [sys.executable, "-c", LATE_IMPORTS, datastore.path, fetching.file],
        input=encode_settings(datastore.settings),
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.split() == []
    assert fetching.file.read_bytes() == BODY
