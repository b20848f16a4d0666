"""The tree of errors: complete, unambiguous, as documented."""

import re
from pathlib import Path

import grpc
import pytest

from cas import errors
from cas.errors import CasError, DigestMismatchError, NoSpaceError

README = Path(__file__).parents[2] / "README.md"
EXIT_CODES = {
    "failed": 1,
    "storage": 1,
    "usage": 2,
    "not-found": 3,
    "conflict": 4,
    "integrity": 5,
    "no-space": 6,
    "vault": 7,
    "unavailable": 8,
    "denied": 9,
    "interrupted": 130,
}


def _tree(root: type[CasError]) -> list[type[CasError]]:
    package = f"{errors.__name__}."
    public = [child for child in root.__subclasses__() if child.__module__.startswith(package)]
    return [root, *(leaf for child in public for leaf in _tree(child))]


def test_references_of_all_classes_are_unique() -> None:
    """A reference names one class."""
    references = [cls.reference for cls in _tree(CasError)]

    assert sorted(references) == sorted(set(references))


@pytest.mark.parametrize("cls", _tree(CasError), ids=lambda cls: cls.__name__)
def test_error_class_carries_documented_codes(cls: type[CasError]) -> None:
    """Kind decides the exit status; the gRPC status exists; the reference is kebab-case."""
    assert EXIT_CODES[cls.kind] == cls.exit_code
    assert cls.grpc_status in grpc.StatusCode.__members__
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.reference)
    assert cls.__doc__


def test_package_lists_every_class_of_its_modules() -> None:
    """One import gives any error, and the drawn tree has every family."""
    tree = _tree(CasError)

    assert set(errors.__all__) == {cls.__name__ for cls in tree}
    assert all(cls.__name__ in (errors.__doc__ or "") for cls in tree if CasError in cls.__bases__)


@pytest.mark.parametrize("cls", _tree(CasError), ids=lambda cls: cls.__name__)
def test_readme_lists_every_reference_with_its_exit_status(cls: type[CasError]) -> None:
    """The troubleshooting table of the README has a row for every reference."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", README.read_text(), flags=re.MULTILINE)

    assert (cls.reference, str(cls.exit_code)) in rows


def test_document_of_an_error_renders_details_as_text() -> None:
    """The JSON form has four keys and only text in its details."""
    error = DigestMismatchError("wrong", expected=1, path=Path("/x"))

    assert error.as_document() == {
        "reference": "digest-mismatch",
        "kind": "integrity",
        "message": "wrong",
        "details": {"expected": "1", "path": "/x"},
    }


def test_no_space_is_not_temporary() -> None:
    """Asking again does not make room."""
    assert NoSpaceError.temporary is False
