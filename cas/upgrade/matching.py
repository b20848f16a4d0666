"""Which volume an old drive became. Pure.

An app's drive and its volume reference have the same index. The old name has the digest of the
drive's image, the app, and, for the app's first drive only, how often the app was purged. So two
drives of one image are told apart by the counter, and files of earlier purges match nothing.
"""

__all__ = ["LatchKey", "Match", "Mismatch", "Unmatched", "VolumeMatching", "latch_keys"]

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cas.errors import InvalidNameError
from cas.model.digest import Digest
from cas.model.volume_name import VolumeName
from cas.upgrade.device_config import AppConfig, DeviceConfig, DriveConfig, VolumeReference
from cas.upgrade.old_name import OldName


class Unmatched(StrEnum):
    """Why an old drive is no volume's."""

    UNKNOWN_APP = "unknown-app"
    UNKNOWN_IMAGE = "unknown-image"
    NO_DIGEST = "no-digest"
    """It may be of a drive of which nobody knows any more what image it had."""
    STALE_PURGE = "stale-purge"
    NO_VOLUME = "no-volume"


@dataclass(frozen=True, slots=True)
class LatchKey:
    """What the old software noted a tag's digest under."""

    app: uuid.UUID
    image: uuid.UUID
    purge: int


@dataclass(frozen=True, slots=True)
class Match:
    """The volume that a drive became.

    Args:
        volume: Its name.
        clear_text: Whether its configuration asks for clear text.
        drive: Index of the drive.
    """

    volume: VolumeName
    clear_text: bool
    drive: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why there is none.

    Args:
        reason: For programs.
        explanation: For people.
        suspects: Volumes that it may be all the same.
    """

    reason: Unmatched
    explanation: str
    suspects: tuple[VolumeName, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    drive: int
    purge: int
    reference: VolumeReference | None


def latch_keys(config: DeviceConfig) -> Iterator[LatchKey]:
    """Tell for which drives the digest has to be looked up in the latch."""
    for app in config.apps:
        for index, drive in enumerate(app.drives):
            if drive is not None and drive.digest is None and drive.image is not None:
                yield LatchKey(app.app, drive.image, _purge(app, index))


def _purge(app: AppConfig, index: int) -> int:
    return app.purge if index == 0 else 0


class VolumeMatching:
    """Finds the volumes of old drives.

    Args:
        config: Of the device.
        latched: Digest of each drive that has none in the configuration, as the latch has it.
    """

    def __init__(self, config: DeviceConfig, latched: Mapping[LatchKey, Digest]) -> None:
        self._config = config
        self._latched = latched
        self._apps = {app.app: app.purge for app in config.apps}
        self._candidates: dict[tuple[uuid.UUID, Digest], list[_Candidate]] = {}
        self._unknown: dict[uuid.UUID, list[_Candidate]] = {}
        for app in config.apps:
            self._add(app)

    def find(self, name: OldName) -> Match | Mismatch:
        """Find the volume of the drive with this name."""
        if name.app not in self._apps:
            return Mismatch(
                Unmatched.UNKNOWN_APP, f"the configuration has no app {name.app}, to which it was"
            )
        candidates = self._candidates.get((name.app, name.digest))
        if not candidates and name.app in self._unknown:
            return self._suspected(name)
        if not candidates:
            return Mismatch(
                Unmatched.UNKNOWN_IMAGE,
                f"no drive of app {name.app} has an image with digest {name.digest}",
            )
        current = [candidate for candidate in candidates if candidate.purge == name.purge]
        if not current:
            counters = ", ".join(sorted({str(candidate.purge) for candidate in candidates}))
            return Mismatch(
                Unmatched.STALE_PURGE,
                f"it is of purge {name.purge} of app {name.app}, whose current one is {counters}",
            )
        return self._resolve(current[0])

    def is_clear(self, name: VolumeName) -> bool:
        """Whether a volume's configuration asks for clear text."""
        volume = self._config.volumes.get(name.uuid)
        return volume is not None and volume.clear_text

    def _add(self, app: AppConfig) -> None:
        for index, drive in enumerate(app.drives):
            if drive is None:
                continue
            reference = app.references[index] if index < len(app.references) else None
            purge = _purge(app, index)
            digest = self._digest(app, drive, purge, reference)
            candidate = _Candidate(index, purge, reference)
            if digest is None:
                self._unknown.setdefault(app.app, []).append(candidate)
            else:
                self._candidates.setdefault((app.app, digest), []).append(candidate)

    def _digest(
        self, app: AppConfig, drive: DriveConfig, purge: int, reference: VolumeReference | None
    ) -> Digest | None:
        """The drive's own digest, else what the latch has, else that of the volume's content."""
        if drive.digest is not None:
            return drive.digest
        if drive.image is not None:
            latched = self._latched.get(LatchKey(app.app, drive.image, purge))
            if latched is not None:
                return latched
        if reference is None or reference.volume is None:
            return None
        volume = self._config.volumes.get(reference.volume)
        if volume is None or volume.content_tree is None:
            return None
        return self._config.content_trees.get(volume.content_tree)

    def _suspected(self, name: OldName) -> Mismatch:
        found = [self._resolve(candidate) for candidate in self._unknown[name.app]]
        return Mismatch(
            Unmatched.NO_DIGEST,
            f"no drive of app {name.app} is known to have an image with digest {name.digest}, but "
            "of some nobody knows the digest",
            tuple(match.volume for match in found if isinstance(match, Match)),
        )

    def _resolve(self, candidate: _Candidate) -> Match | Mismatch:
        reference = candidate.reference
        if reference is None:
            problem = f"drive {candidate.drive} of its app has no volume reference"
            return Mismatch(Unmatched.NO_VOLUME, problem)
        if reference.volume is None:
            problem = f"the volume reference of drive {candidate.drive} has no valid UUID"
            return Mismatch(Unmatched.NO_VOLUME, problem)
        try:
            name = VolumeName(reference.volume, reference.generation)
        except InvalidNameError as error:
            return Mismatch(Unmatched.NO_VOLUME, error.message)
        volume = self._config.volumes.get(reference.volume)
        return Match(name, volume is not None and volume.clear_text, candidate.drive)
