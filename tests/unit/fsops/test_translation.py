"""From errno to our errors."""

import errno
import os

import pytest

from cas.errors import (
    AlreadyExistsError,
    CasError,
    DeniedError,
    InUseError,
    NoSpaceError,
    SourceNotFoundError,
    StorageError,
    VaultLockedError,
)
from cas.fsops.translation import storage_error, translated


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EACCES, DeniedError),
        (errno.EPERM, DeniedError),
        (errno.ENOKEY, VaultLockedError),
        (errno.EBUSY, InUseError),
        (errno.ETXTBSY, InUseError),
        (errno.EEXIST, AlreadyExistsError),
        (errno.ENOENT, StorageError),
        (errno.EROFS, StorageError),
        (errno.EIO, StorageError),
        (errno.EXDEV, StorageError),
    ],
)
def test_errno_becomes_its_error_with_name_action_and_path(
    number: int, kind: type[CasError]
) -> None:
    """The message says what failed, on what, and how the kernel calls it."""
    with pytest.raises(CasError) as raised, translated("rename", "/a/b"):
        raise OSError(number, os.strerror(number))
    assert type(raised.value) is kind
    assert raised.value.message.startswith("cannot rename '/a/b': ")
    assert f"({errno.errorcode[number]})" in raised.value.message
    assert raised.value.details["path"] == "/a/b"
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_errno_has_a_counterpart_and_a_tidy_message(number: int) -> None:
    """No errno leaves fsops as an OSError, and no message ends in a full stop."""
    error = storage_error("sync", "/x", OSError(number, "whatever"))
    assert isinstance(error, CasError)
    assert error.details["errno"] == errno.errorcode[number]
    assert not error.message.endswith(".")


def test_missing_source_is_source_not_found_and_other_paths_are_not() -> None:
    """Only what the caller gave to read may be missing by his own doing."""
    cause = FileNotFoundError(errno.ENOENT, "")
    missing = storage_error("open", "/x", cause, source=True)
    assert type(missing) is SourceNotFoundError
    assert missing.message.endswith("; check the path")
    assert type(storage_error("open", "/x", cause)) is StorageError


def test_error_without_errno_is_a_storage_error() -> None:
    """An OSError that a library made up has no number."""
    assert type(storage_error("read", "/x", OSError("odd"))) is StorageError


def test_error_of_ours_passes_unchanged() -> None:
    """Translation happens once."""
    error = InUseError("busy")
    with pytest.raises(InUseError) as raised, translated("remove", "/x"):
        raise error
    assert raised.value is error
