"""Errors that another process met and told: the same class again, with the same words."""

__all__ = ["rebuild_error"]

from collections.abc import Mapping
from functools import cache

from cas import errors
from cas.errors import CasError
from cas.model.printable import printable


def rebuild_error(reference: str, kind: str, message: str, details: Mapping[str, str]) -> CasError:
    """Make the error that the other process raised.

    Args:
        reference: Decides the class.
        kind: Decides it for a reference that only a newer release has.
        message: As it was told; what is not printable in it is replaced.
        details: As they were told.
    """
    by_reference, by_kind = _tree()
    found = by_reference.get(reference) or by_kind.get(kind, CasError)
    error = found(printable(message))
    error.details = dict(details)  # not as keywords, whose names the other side would choose
    return error


@cache
def _tree() -> tuple[Mapping[str, type[CasError]], Mapping[str, type[CasError]]]:
    listed = [each for each in vars(errors).values() if isinstance(each, type)]
    classes = [each for each in listed if issubclass(each, CasError)]
    families = {each.kind: each for each in classes if CasError in each.__bases__}
    return {each.reference: each for each in classes}, families
