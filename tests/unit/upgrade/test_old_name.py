"""The names of the old layout, as the facts list them, and how EVE itself would have read them."""

import uuid

import pytest

from cas.model.digest import Digest
from cas.upgrade.old_name import OldName, OldNameError, parse_old_container, parse_old_disk

S = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
U = "7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34"


def _name(purge: int = 0, suffix: str = "") -> OldName:
    return OldName(Digest(S), uuid.UUID(U), purge, suffix)


@pytest.mark.parametrize(
    ("name", "disk", "container"),
    [
        (f"{S}-{U}.qcow2", _name(0, "qcow2"), "does not go on"),
        (f"{S}-{U}#3.qcow2", _name(3, "qcow2"), "does not go on"),
        (f"{S.upper()}-{U}.QCOW2", _name(0, "QCOW2"), "does not go on"),
        (f"{S}-{U}.qcow2.tmp", "temporary", "temporary"),
        (f"{S}-{U}#3.qcow2.tmp", "temporary", "temporary"),
        (f"{S}-{U}.qcow2.bak", r"\.<format>", "does not go on"),
        (f"{S}-{U}", r"\.<format>", _name()),
        (f"{S}-{U}#3", r"\.<format>", _name(3)),
        (f"{S.upper()}-{U}", r"\.<format>", _name()),
        (f"{S}-{U}#3extra", r"\.<format>", "does not go on"),
        (f"{S}-{U}#.raw", r"\.<format>", "does not go on"),
        (f"{S}-{U}#4294967295.raw", _name(2**32 - 1, "raw"), "does not go on"),
        (f"{S}-{U}#4294967296.raw", "32 bits", "32 bits"),
        (f"{S}-{U}#99999999999.raw", "32 bits", "32 bits"),
        (f"{S}-{U}#{'9' * 5000}.raw", "32 bits", "32 bits"),
        (f"ab-{U}.raw", "2 digits", "2 digits"),
        (f"ab-{U}", "2 digits", "2 digits"),
        (f"{U}#1.qcow2", "new layout", "new layout"),
        (f"{U}#1", "new layout", "new layout"),
        (f"01434c4dK-{U}.qcow2", "the name is not", "the name is not"),
        (f"{S}.qcow2", "the name is not", "the name is not"),
        (f"{S}-{U.upper()}.raw", "the name is not", "the name is not"),
        (f"{S}-{U.replace('-', '')}.raw", "the name is not", "the name is not"),
        (f"{S}-{uuid.UUID(int=0)}.raw", "zero", "zero"),
        (f"x{S}-{U}.raw", "the name is not", "the name is not"),
        (f"{S}-{U}.raw\n", r"\.<format>", "does not go on"),
        ("", "the name is not", "the name is not"),
    ],
)
def test_old_name_is_one_as_a_whole_or_says_why_not(
    name: str, disk: OldName | str, container: OldName | str
) -> None:
    """Temporary files, short digests, tails and foreign names never pass for a volume."""
    for parse, expected in ((parse_old_disk, disk), (parse_old_container, container)):
        if isinstance(expected, OldName):
            assert parse(name) == expected
        else:
            with pytest.raises(OldNameError, match=expected):
                parse(name)
