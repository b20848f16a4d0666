"""Holds the volumes whose old data a run could not convert, and lets go of the others."""

__all__ = ["Holding"]

from cas.model.layout import Layout
from cas.model.volume_name import VolumeName
from cas.upgrade.items import Kind, Outcome, Reason, Result
from cas.volumes.holds import ALL_VOLUMES, hold, iter_held, release

_DRIVES = frozenset({Kind.DISK, Kind.CONTAINER})


class Holding:
    """What one run holds.

    Args:
        layout: Where.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held: set[str] = set()

    def begin(self) -> None:
        """Hold every volume until the run is over, so that a kill lets nobody make them meanwhile.

        Raises:
            NoSpaceError: No room to note it.
            StorageError: Any other failed system call.
        """
        hold(self._layout, ALL_VOLUMES, "an upgrade was begun and did not come to its end")

    def heed(self, outcome: Outcome) -> None:
        """Hold the volume of something that failed, or all where nobody knows which it is.

        Also a volume that is there under a longer name, and was not asked for.

        Raises:
            NoSpaceError: No room to note it.
            StorageError: Any other failed system call.
        """
        planned = outcome.planned
        for suspect in planned.suspects:
            self._hold(str(suspect), planned.explanation)
        if outcome.result is Result.FAILED and planned.volume is not None:
            # What stands under the new name is whole: only its original could not be removed.
            if planned.target is None or not planned.target.exists():
                reason = "it failed" if outcome.error is None else outcome.error.message
                self._hold(str(planned.volume), reason)
        elif planned.reason is Reason.STORE_NOT_CONVERTED:
            self._hold(str(planned.volume), planned.explanation)
        elif planned.reason is Reason.SUFFIXED and planned.volume is not None:
            if not self._exists(planned.volume):
                self._hold(str(planned.volume), planned.explanation)
        elif planned.reason is Reason.NO_CONFIG and planned.found.kind in _DRIVES:
            self._hold(ALL_VOLUMES, planned.explanation)

    def release_others(self) -> None:
        """Let go of what earlier runs held and this one did not.

        Raises:
            StorageError: A system call failed.
        """
        for key, _ in list(iter_held(self._layout)):
            if key not in self._held:
                release(self._layout, key)

    def _exists(self, volume: VolumeName) -> bool:
        directories = (self._layout.volumes, self._layout.clear_volumes)
        return any((directory / str(volume)).exists() for directory in directories)

    def _hold(self, key: str, reason: str) -> None:
        if key not in self._held:
            hold(self._layout, key, reason)
            self._held.add(key)
