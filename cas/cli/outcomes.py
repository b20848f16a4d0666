"""Commands on several objects: what fails for one is reported, and the others are done."""

__all__ = ["attempt", "print_outcomes"]

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cas.cli.invocation import Invocation
from cas.cli.output import print_acts
from cas.errors import CasError

_Name = TypeVar("_Name")
_Result = TypeVar("_Result")


def attempt(
    names: Iterable[_Name], act: Callable[[_Name], _Result]
) -> Iterator[tuple[_Name, _Result | CasError]]:
    """Act on each object; yield it with what that gave, an error of the library included."""
    for name in names:
        outcome: _Result | CasError
        try:
            outcome = act(name)
        except CasError as error:
            outcome = error
        yield name, outcome


def print_outcomes(
    invocation: Invocation,
    outcomes: Iterable[tuple[_Name, _Result | CasError]],
    *,
    document: Callable[[_Name, _Result], object],
) -> int:
    """Print the names of those that went well, and the errors of the others on stderr.

    Args:
        invocation: Knows the form.
        outcomes: Consumed once, see :func:`attempt`.
        document: What ``--json`` prints: an array of these.

    Returns:
        The exit status: that of the last error, 0 if there was none.
    """
    status = 0

    def good() -> Iterator[tuple[_Name, _Result]]:
        nonlocal status
        for name, outcome in outcomes:
            if isinstance(outcome, CasError):
                status = invocation.report(outcome)
            else:
                yield name, outcome

    print_acts(
        invocation, good(), line=lambda act: str(act[0]), document=lambda act: document(*act)
    )
    return status
