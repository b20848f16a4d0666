"""Progress on the wire, read: from messages back to the calls that a display knows."""

__all__ = ["ProgressReplay"]

from cas._gen.cas.v1 import types_pb2
from cas.model.progress import Progress


class ProgressReplay:
    """Hands on what a service reports, to somebody who watches.

    Args:
        progress: The watcher.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done: dict[tuple[str, str], int] = {}

    def hand_on(self, message: types_pb2.Progress) -> None:
        """Tell the watcher what changed since the last message about the same item."""
        if not message.action:
            return  # a sign of life
        key = (message.action, message.item)
        if key not in self._done:
            self._done[key] = 0
            self._progress.start(*key, message.total or None, message.unit)
        if amount := message.done - self._done[key]:
            self._done[key] = message.done
            self._progress.advance(*key, amount)
        if message.finished:
            del self._done[key]
            self._progress.finish(*key)
