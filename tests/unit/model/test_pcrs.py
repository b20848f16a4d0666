"""Which PCRs a key may be sealed under."""

import pytest

from cas.errors import ConfigError
from cas.model.pcrs import DEFAULT_PCRS, check_pcrs


@pytest.mark.parametrize("pcrs", [DEFAULT_PCRS, (0,), (0, 10, 11, 12, 13, 14, 15)])
def test_selection_that_proves_the_start_is_accepted(pcrs: tuple[int, ...]) -> None:
    """The default, the firmware alone, and the firmware with what the system measures."""
    assert check_pcrs(pcrs) == pcrs


def test_selection_in_any_order_comes_back_sorted() -> None:
    """The order says nothing to a TPM."""
    assert check_pcrs([7, 0, 4]) == (0, 4, 7)


@pytest.mark.parametrize(
    ("pcrs", "told"),
    [
        ([], "empty"),
        ([1, 2], "lacks 0"),
        ([0, 3, 3], "twice"),
        ([0, -1], "has -1"),
        ([0, 20], "has 20"),
        ([0, 5], "has 5"),
        ([0, 16], "has 16"),
        ([0, 17], "has 17"),
        ([0, 23], "has 23"),
        (list(range(18)), "has 16"),
    ],
)
def test_selection_that_cannot_work_is_refused_with_its_reason(pcrs: list[int], told: str) -> None:
    """What would prove nothing, break at the next update, or is not there."""
    with pytest.raises(ConfigError, match=told):
        check_pcrs(pcrs)
