"""Errors of another process become ours again."""

import pytest

from cas.errors import CasError, DigestMismatchError, IntegrityError, UnavailableError
from cas.model.foreign_errors import rebuild_error


@pytest.mark.parametrize(
    ("reference", "kind", "expected"),
    [
        ("digest-mismatch", "integrity", DigestMismatchError),
        ("integrity", "integrity", IntegrityError),
        ("of-a-later-release", "unavailable", UnavailableError),
        ("of-a-later-release", "of-a-later-release", CasError),
    ],
)
def test_rebuilt_error_has_the_class_of_its_reference_or_family(
    reference: str, kind: str, expected: type[CasError]
) -> None:
    """Callers decide by class, whichever process raised."""
    error = rebuild_error(reference, kind, "words", {"digest": "x"})

    assert type(error) is expected
    assert (error.message, error.details) == ("words", {"digest": "x"})


def test_details_named_like_parameters_do_no_harm() -> None:
    """The other side chooses the names, and may be hostile."""
    error = rebuild_error("usage", "usage", "words", {"message": "a", "self": "b"})

    assert error.details == {"message": "a", "self": "b"}


def test_rebuilt_error_commands_no_terminal() -> None:
    """The other side may be in an attacker's hands, and root reads the words."""
    error = rebuild_error("usage", "usage", "a\x1b[2J\x07b\nc", {})

    assert error.message == "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}b c"
