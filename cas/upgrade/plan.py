"""Decides what becomes of each thing in the old places. Pure: what it has to know is asked for.

Whatever is not moved is left with a reason; nothing is left out.
"""

__all__ = ["PlanOptions", "Planner"]

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cas.errors import InvalidNameError
from cas.model.layout import Layout
from cas.model.sizes import format_size
from cas.model.volume_name import VolumeName
from cas.upgrade.download_plan import plan_download
from cas.upgrade.items import Action, FileType, Found, Kind, Planned, Reason
from cas.upgrade.matching import Match, VolumeMatching
from cas.upgrade.old_layout import OldLayout
from cas.upgrade.old_name import OldName, OldNameError, parse_old_container, parse_old_disk
from cas.upgrade.world import World

_WANTED = {Kind.DISK: FileType.FILE, Kind.CONTAINER: FileType.DIRECTORY}
_MERGED = "this one is merged into it, and then goes if nothing keeps it"
_PARSERS = {Kind.DISK: parse_old_disk, Kind.CONTAINER: parse_old_container}


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a caller may ask for.

    Args:
        adopt_suffixed: Take the format off the names of volumes.
        remove_recreated: Remove what the old software has made again after the conversion.
    """

    adopt_suffixed: bool = False
    remove_recreated: bool = False


class Planner:
    """Makes plans.

    Args:
        layout: The new places.
        matching: Which old drive is which volume; None if that cannot be told.
        problem: Why it cannot.
        world: Answers questions.
        options: What is asked for.
    """

    def __init__(
        self,
        layout: Layout,
        matching: VolumeMatching | None,
        problem: str,
        world: World,
        options: PlanOptions,
    ) -> None:
        self._layout = layout
        self._matching = matching
        self._problem = problem
        self._world = world
        self._options = options
        self._targets: dict[Path, Path] = {}
        self._current_store = layout.case  # where it is now
        self._store_stays = False
        self._is_waited_for = False
        old = OldLayout(layout.persist)
        self._places = {old.disks, old.containers, *old.above_containers}

    def plan(self, found: Iterable[Found]) -> Iterator[Planned]:
        """Plan for everything that is found, in its order; memory grows with the moves only.

        A store that is to be removed comes last: what waits for it is known then.
        """
        removed = []
        for each in found:
            match each.kind:
                case Kind.DISK | Kind.CONTAINER:
                    yield self._drive(each)
                case Kind.SUFFIXED:
                    yield self._suffixed(each)
                case Kind.STORE:
                    planned = self._store(each)
                    if planned.action is Action.DISCARD:
                        removed.append(planned)
                    else:
                        yield planned
                case Kind.DOWNLOAD | Kind.VERIFIED:
                    yield plan_download(each, self._layout, self._world)

        for store in removed:
            yield self._unless_waited_for(store)

    def _unless_waited_for(self, planned: Planned) -> Planned:
        """Leave a store that has what a container waits for, which was never converted."""
        if not self._is_waited_for:
            return planned
        text = f"containers wait for snapshots that may be in it; {_MERGED} first"
        return replace(planned, action=Action.LEAVE, reason=Reason.STORE_EXISTS, explanation=text)

    def _store(self, found: Found) -> Planned:
        target = self._layout.case
        if found.type is not FileType.DIRECTORY:
            self._store_stays = True
            return _left(found, Reason.WRONG_TYPE, "it is no directory, which a store has to be")
        first = self._targets.setdefault(target, found.path)
        if first != found.path:
            self._store_stays = True
            return self._beside(found, f"the newer store {str(first)!r} becomes {str(target)!r}")
        inode = self._world.inode(target)
        if inode is not None and self._world.copied(found.path, target) == (found.identity, inode):
            text = f"{str(target)!r} is its complete copy, and only the original has to go"
            return Planned(found, Action.FINISH, Reason.COPIED_BEFORE, text, target)
        if self._world.is_vacant(target):
            self._current_store = found.path
            text = f"it becomes {str(target)!r}, with all images and snapshots"
            return self._transfer(Planned(found, Action.RENAME, Reason.OLD_STORE, text, target))
        self._store_stays = True
        made_again = self._world.converted_from(found.path, target)
        if not self._options.remove_recreated or not made_again:
            return self._beside(found, f"{str(target)!r} is a store already")
        text = "the store was converted before, and the removal of the old one was asked for"
        return Planned(found, Action.DISCARD, Reason.ASKED_FOR, text, target)

    def _beside(self, found: Found, why: str) -> Planned:
        """Leave a store for a merge, or since the last one left something in it."""
        target, left = self._layout.case, self._world.why_left(found.path)
        reason = Reason.STORE_LEFT if left else Reason.STORE_EXISTS
        text = f"{why}, and the last merge could not take all of this one: {left}" if left else ""
        return Planned(found, Action.LEAVE, reason, text or f"{why}; {_MERGED}", target)

    def _drive(self, found: Found) -> Planned:
        if found.path in self._places:
            return _left(found, Reason.WRONG_TYPE, "it is no directory, and is not followed")
        try:
            name = _PARSERS[found.kind](found.path.name)
        except OldNameError as error:
            return _left(found, Reason.NO_VOLUME_NAME, str(error))
        wanted = _WANTED[found.kind]
        if found.type is not wanted:
            text = f"it is no {wanted.value}, which a {found.kind.value} has to be"
            return _left(found, Reason.WRONG_TYPE, text)
        if self._matching is None:
            return _left(found, Reason.NO_CONFIG, self._problem)
        match = self._matching.find(name)
        if isinstance(match, Match):
            return self._move(found, match.volume, self._target(found, match), _told(match, name))
        left = _left(found, Reason(match.reason), match.explanation)
        return replace(left, suspects=match.suspects)

    def _target(self, found: Found, match: Match) -> Path:
        # A container's files lie in the store, and that is always encrypted.
        if match.clear_text and found.kind is Kind.DISK:
            return self._layout.clear_volumes / str(match.volume)
        return self._layout.volume(match.volume)

    def _suffixed(self, found: Found) -> Planned:
        stem = found.path.name.partition(".")[0]
        try:
            volume = VolumeName.parse(stem)
        except InvalidNameError as error:
            return _left(found, Reason.NO_VOLUME_NAME, error.message)
        if found.is_container and found.type is not FileType.DIRECTORY:
            text = "it is no directory, which a container has to be"
            return replace(_left(found, Reason.WRONG_TYPE, text), volume=volume)
        if not self._options.adopt_suffixed:
            text = (
                f"{found.path.name!r} has its format after its name, as EVE's own releases write "
                "it; `cas upgrade run --adopt-suffixed` takes that off"
            )
            return replace(_left(found, Reason.SUFFIXED, text), volume=volume)
        directory = found.path.parent
        if found.type is FileType.FILE and self._matching is not None:
            # Earlier converters put every disk into the vault.
            clear = self._matching.is_clear(volume)
            directory = self._layout.clear_volumes if clear else directory
        return self._move(found, volume, directory / stem, "its format goes off its name")

    def _move(self, found: Found, volume: VolumeName, target: Path, why: str) -> Planned:
        first = self._targets.setdefault(target, found.path)
        if first != found.path:
            text = f"{str(first)!r} becomes volume {volume} already"
            return Planned(found, Action.LEAVE, Reason.VOLUME_TAKEN, text, target, volume)
        for place in (target, self._other_place(target)):
            inode = self._world.inode(place)
            if inode is not None:
                return self._occupied(found, volume, place, inode)
        suffixed = self._world.suffixed(volume)
        if suffixed not in (None, found.path):
            text = f"{str(suffixed)!r} is this volume, as EVE's own releases name it"
            return Planned(found, Action.LEAVE, Reason.FOREIGN_TARGET, text, target, volume)
        if found.is_container and self._lacks_snapshot(found):
            self._is_waited_for = True
            text = "its snapshot is in an old store, which is merged first"
            return Planned(found, Action.LEAVE, Reason.STORE_NOT_CONVERTED, text, target, volume)
        return self._transfer(Planned(found, Action.RENAME, Reason.MATCHED, why, target, volume))

    def _other_place(self, target: Path) -> Path:
        """Where the volume would be if its configuration asked for the other kind of text."""
        layout = self._layout
        is_clear = target.parent == layout.clear_volumes
        return (layout.volumes if is_clear else layout.clear_volumes) / target.name

    def _lacks_snapshot(self, found: Found) -> bool:
        return self._store_stays and not self._world.has_snapshot(self._current_store, found.path)

    def _transfer(self, planned: Planned) -> Planned:
        """Copy what cannot be renamed, and tell what that needs; measuring takes its time."""
        found, target = planned.found, planned.target
        if target is None or not self._world.must_copy(found.path, target):
            return planned
        if found.type is FileType.DIRECTORY:
            found = replace(found, size=self._world.allocated(found.path))
        copied = replace(planned, found=found, action=Action.COPY)
        room = f"its copy needs {format_size(copied.needed)} at once before the original goes"
        return replace(copied, explanation=f"{planned.explanation}; {room}")

    def _occupied(self, found: Found, volume: VolumeName, target: Path, inode: int) -> Planned:
        if self._world.copied(found.path, target) == (found.identity, inode):
            text = f"volume {volume} is its complete copy, and only the original has to go"
            return Planned(found, Action.FINISH, Reason.COPIED_BEFORE, text, target, volume)
        if not self._world.converted(target):
            text = f"{str(target)!r} exists and was not made by a conversion; it stays as it is"
            return Planned(found, Action.LEAVE, Reason.FOREIGN_TARGET, text, target, volume)
        if self._options.remove_recreated:
            text = f"volume {volume} was converted before, and its removal was asked for"
            return Planned(found, Action.DISCARD, Reason.ASKED_FOR, text, target, volume)
        text = f"volume {volume} was converted before; older software has made it again since"
        return Planned(found, Action.LEAVE, Reason.RECREATED, text, target, volume)


def _left(found: Found, reason: Reason, explanation: str) -> Planned:
    return Planned(found, Action.LEAVE, reason, explanation)


def _told(match: Match, name: OldName) -> str:
    return f"it is drive {match.drive} of app {name.app}, which is volume {match.volume} now"
