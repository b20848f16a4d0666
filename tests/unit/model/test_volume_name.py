"""Volume names."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import InvalidNameError
from cas.model.volume_name import VolumeName

UUID = "7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34"


@given(st.uuids(), st.integers(min_value=0, max_value=2**64 - 1))
def test_volume_name_round_trips(value: uuid.UUID, generation: int) -> None:
    """Printing and parsing give the same name."""
    name = VolumeName(value, generation)

    assert VolumeName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        UUID,
        f"{UUID}#",
        f"#{0}",
        f"{UUID}#01",
        f"{UUID}#-1",
        f"{UUID}#+1",
        f"{UUID}#1 ",
        f" {UUID}#1",
        f"{UUID}#1\n",
        f"{UUID}#{2**64}",
        f"{UUID}#99999999999999999999999",
        f"{UUID}#0x1",
        f"{UUID}#\N{ARABIC-INDIC DIGIT ONE}",
        f"{UUID.upper()}#0",
        f"{{{UUID}}}#0",
        f"urn:uuid:{UUID}#0",
        f"{UUID.replace('-', '')}#0",
        f"{UUID}#0.container",
        f"{UUID}#0#0",
        f"../{UUID}#0",
        f"{UUID}#0/..",
        f"{UUID}#0\0",
    ],
)
def test_volume_name_in_every_wrong_form_is_refused(text: str) -> None:
    """Only the canonical form parses."""
    with pytest.raises(InvalidNameError):
        VolumeName.parse(text)


@given(st.text(max_size=60))
def test_volume_name_parse_of_garbage_raises_only_invalid_name(text: str) -> None:
    """Whatever is not a volume name is an invalid name and nothing else."""
    with pytest.raises(InvalidNameError):
        VolumeName.parse(text)
