"""Hashing in a second thread."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.model.digest import Digest
from cas.store.content.hashing import BackgroundHash, digest_of

chunk_lists = st.lists(st.binary(max_size=50), max_size=30)


@given(chunk_lists)
def test_digest_is_that_of_all_bytes_in_order(chunks: list[bytes]) -> None:
    """However the bytes are cut, the digest is that of the whole."""
    whole = b"".join(chunks)
    with BackgroundHash() as running:
        for chunk in chunks:
            running.update(chunk)
        assert running.digest() == Digest.of(whole)
    assert digest_of(chunks) == (Digest.of(whole), len(whole))


def test_digest_may_be_asked_for_in_between() -> None:
    """Feeding goes on after an intermediate digest."""
    with BackgroundHash() as running:
        running.update(b"a")
        assert running.digest() == Digest.of(b"a")
        running.update(b"b")
        assert running.digest() == Digest.of(b"ab")


def test_restart_forgets_what_was_fed() -> None:
    """Also chunks that still wait."""
    with BackgroundHash() as running:
        for _ in range(10):
            running.update(bytes(100_000))
        running.restart()
        running.update(b"x")
        assert running.digest() == Digest.of(b"x")


def test_thread_ends_with_the_context_also_after_an_error() -> None:
    """No thread is left, whatever ended the work; closing twice is harmless."""
    before = set(threading.enumerate())
    running = BackgroundHash()

    def fail() -> None:
        with running:
            for _ in range(10):
                running.update(bytes(100_000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    running.close()
    assert set(threading.enumerate()) <= before
