"""gRPC status codes become errors of ours."""

import errno
import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from cas.containerd.translation import TRANSLATIONS, RefLockedError, translated
from cas.errors import (
    BlobNotFoundError,
    CasError,
    DaemonError,
    DaemonUnavailableError,
    LockTimeoutError,
    NoSpaceError,
)


class _Failure(grpc.RpcError, grpc.Call):
    """What gRPC raises, with a status of choice."""

    def __init__(self, code: grpc.StatusCode, details: str | None = "containerd's words") -> None:
        super().__init__()
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:  # type: ignore[override]  # gRPC gives None at times
        return self._details

    def initial_metadata(self) -> tuple[Any, ...]:
        return ()

    def trailing_metadata(self) -> tuple[Any, ...]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:  # type: ignore[override]  # no deadline
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: object) -> bool:
        return False


def _translate(failure: grpc.RpcError) -> CasError:
    with pytest.raises(CasError) as caught, translated("do a thing"):
        raise failure
    assert caught.value.__cause__ is failure
    return caught.value


def test_translations_cover_every_status_code() -> None:
    """A code that gRPC may answer has a counterpart."""
    assert set(TRANSLATIONS) == set(grpc.StatusCode)


@pytest.mark.parametrize("code", grpc.StatusCode, ids=lambda code: code.name)
def test_translated_any_code_raises_its_counterpart_with_action_and_words(
    code: grpc.StatusCode,
) -> None:
    """The class follows from the code; the message says what was done and what containerd said."""
    error = _translate(_Failure(code))

    assert type(error) is TRANSLATIONS[code]
    assert error.message.startswith("cannot do a thing: ")
    assert error.message.endswith("containerd's words")
    assert error.details["code"] == code.name


def test_translated_without_words_names_the_code() -> None:
    """A message is never empty."""
    assert _translate(_Failure(grpc.StatusCode.ABORTED, None)).message.endswith("ABORTED")


def test_translated_nearer_class_goes_before_the_table() -> None:
    """A call that knows what is missing says so."""
    nearer = {grpc.StatusCode.NOT_FOUND: BlobNotFoundError}
    with pytest.raises(BlobNotFoundError), translated("find", nearer=nearer):
        raise _Failure(grpc.StatusCode.NOT_FOUND)


def test_translated_full_disk_under_unknown_is_no_space() -> None:
    """The text of ENOSPC is the one sign that containerd gives of a full disk."""
    text = f"write /x: {os.strerror(errno.ENOSPC).lower()}: unknown"
    assert type(_translate(_Failure(grpc.StatusCode.UNKNOWN, text))) is NoSpaceError


def test_translated_no_space_text_under_other_code_is_not_no_space() -> None:
    """A name that an attacker chose does not turn one error into another."""
    text = "image no space left on device"
    assert type(_translate(_Failure(grpc.StatusCode.INTERNAL, text))) is DaemonError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ref ns/1/x locked for 1s (since 2026): unavailable", RefLockedError),
        ("ref ns/1/x locked: unavailable", RefLockedError),
        ("failed to connect to all addresses", DaemonUnavailableError),
        ("connect to ref x locked", DaemonUnavailableError),
    ],
)
def test_translated_unavailable_tells_locked_ref_from_lost_connection(
    text: str, kind: type[CasError]
) -> None:
    """Both come under one code."""
    assert type(_translate(_Failure(grpc.StatusCode.UNAVAILABLE, text))) is kind
    assert issubclass(RefLockedError, LockTimeoutError)


def test_translated_error_without_status_is_a_daemon_error() -> None:
    """Nothing of gRPC leaves the package."""
    assert type(_translate(grpc.RpcError("odd"))) is DaemonError


def test_translated_inside_a_generator_covers_errors_in_mid_stream() -> None:
    """A stream that breaks after its first answer raises an error of ours as well."""

    def stream() -> Iterator[int]:
        with translated("list"):
            yield 1
            raise _Failure(grpc.StatusCode.UNAVAILABLE)

    answers = stream()
    assert next(answers) == 1
    with pytest.raises(DaemonUnavailableError):
        next(answers)


def test_translated_other_exceptions_pass() -> None:
    """Mistakes and interrupts are not dressed up."""
    with pytest.raises(KeyboardInterrupt), translated("wait"):
        raise KeyboardInterrupt
