"""Takes back what an operation did when it cannot be finished."""

__all__ = ["Undo"]

from collections.abc import Callable
from types import TracebackType
from typing import Self

from cas.errors import CasError


class Undo:
    """Context manager that runs the added steps, last one first, when its block raises.

    A step that fails does not hide the first error: it becomes a note on it, and recovery does
    later what the step could not.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def add(self, what: str, step: Callable[[], object]) -> None:
        """Remember how to take back what is about to be done; ``step`` must be idempotent."""
        self._steps.append((what, step))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        for what, step in reversed(self._steps):
            try:
                step()
            except CasError as second:
                error.add_note(f"{what} is left to recovery: {second}")
