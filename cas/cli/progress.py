"""Progress on stderr: bars on a terminal, lines or JSON where asked for."""

__all__ = ["open_progress"]

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from cas.model.progress import Progress

_SECONDS_BETWEEN_LINES = 1.0
_SHORT = 19
_USUAL_COLUMNS = 80


class _Bars:
    """One tqdm bar per item; tqdm itself serialises the threads."""

    def __init__(self) -> None:
        self._bars: dict[tuple[str, str], tqdm[Any]] = {}
        self._lock = threading.Lock()
        self._columns = None if _has_width() else _USUAL_COLUMNS

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        with self._lock:
            self._bars[action, item] = tqdm(
                total=total,
                desc=f"{action} {item[:_SHORT]}",
                unit=unit,
                unit_scale=True,
                leave=False,
                file=sys.stderr,
                ncols=self._columns,
                dynamic_ncols=self._columns is None,
            )

    def advance(self, action: str, item: str, amount: int) -> None:
        with self._lock:
            bar = self._bars.get((action, item))
            if bar is not None:
                bar.update(amount)

    def finish(self, action: str, item: str) -> None:
        with self._lock:
            bar = self._bars.pop((action, item), None)
            if bar is not None:
                bar.close()

    def close(self) -> None:
        with self._lock:
            for bar in self._bars.values():
                bar.close()
            self._bars.clear()


def _has_width() -> bool:
    """Whether stderr knows its width: serial lines say 0, for which tqdm draws nothing."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return True


class _Lines:
    """A line per item and second, as text or JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._done: dict[tuple[str, str], tuple[int, int | None, str]] = {}
        self._printed: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        with self._lock:
            self._done[action, item] = (0, total, unit)
            self._print(action, item, "start")

    def advance(self, action: str, item: str, amount: int) -> None:
        with self._lock:
            done, total, unit = self._done.get((action, item), (0, None, "B"))
            self._done[action, item] = (done + amount, total, unit)
            if time.monotonic() - self._printed.get((action, item), 0.0) >= _SECONDS_BETWEEN_LINES:
                self._print(action, item, "progress")

    def finish(self, action: str, item: str) -> None:
        with self._lock:
            if (action, item) in self._done:
                self._print(action, item, "finish")
                del self._done[action, item]
                self._printed.pop((action, item), None)

    def _print(self, action: str, item: str, event: str) -> None:
        done, total, unit = self._done[action, item]
        self._printed[action, item] = time.monotonic()
        if self._as_json:
            text = json.dumps(
                {
                    "event": event,
                    "action": action,
                    "item": item,
                    "done": done,
                    "total": total,
                    "unit": unit,
                }
            )
        else:
            of = "" if total is None else f" of {total}"
            text = f"{action} {item}: {event} {done}{of} {unit}"
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


@contextmanager
def open_progress(mode: str) -> Iterator[Progress]:
    """Show progress until the block ends.

    Args:
        mode: ``auto`` (bars), ``plain`` (lines) or ``json`` (one object per line).
    """
    display = _Bars() if mode == "auto" else _Lines(as_json=mode == "json")
    try:
        yield display
    finally:
        display.close()
