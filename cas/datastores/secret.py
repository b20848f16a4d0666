"""Values that must not be seen in logs, errors or representations."""

__all__ = ["NO_SECRET", "Secret"]

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A text that shows itself only when asked: ``str()`` and ``repr()`` give ``***``.

    False when empty.
    """

    _value: str = ""

    def reveal(self) -> str:
        """Give the text, to be handed to the peer that it is meant for."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __str__(self) -> str:
        return "***" if self._value else ""

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"


NO_SECRET = Secret()
"""The empty one."""
