"""How much memory a process of many threads keeps although it needs it no more."""

__all__ = ["bound_arenas"]

import ctypes

_M_ARENA_MAX = -8
"""Of mallopt(3)."""
_ARENAS = 2


def bound_arenas() -> None:
    """Have threads share their heaps; to be called before there are threads.

    The GNU allocator gives threads up to eight heaps per processor, and each keeps what its threads
    once needed: of a service under 64 callers on two processors, that was a fifth of its memory.
    Other allocators have nothing of the kind, and nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
