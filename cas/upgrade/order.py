"""In which order to convert. Pure.

A copy needs room for as long as its original stands beside it; where both are on one file system
the room comes back after each. If all fits, the order is that of the plan; if not, the smallest go
first, so that as many as possible are converted, and the others fail for want of room.
"""

__all__ = ["arrange", "peak_bytes"]

from collections.abc import Callable, Iterable, Sequence

from cas.upgrade.items import Kind, Planned


def peak_bytes(moves: Iterable[Planned], returns_room: Callable[[Planned], bool]) -> int:
    """Tell how much has to be free for all moves to one file system.

    Args:
        moves: In any order.
        returns_room: Whether a move's original is on the file system of its target.
    """
    kept, largest = 0, 0
    for move in moves:
        if returns_room(move):
            largest = max(largest, move.needed)
        else:
            kept += move.needed
    return kept + largest


def arrange(
    moves: Sequence[Planned], returns_room: Callable[[Planned], bool], free: int
) -> list[Planned]:
    """Give the moves in the order to do them in; what others depend on comes first.

    Args:
        moves: As planned.
        returns_room: See :func:`peak_bytes`.
        free: Bytes that may be used.
    """
    fits = peak_bytes(moves, returns_room) <= free
    return sorted(
        moves, key=lambda move: (move.found.kind is not Kind.STORE, 0 if fits else move.needed)
    )
