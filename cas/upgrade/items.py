"""What is found, what is planned for it, and what became of it; values only."""

__all__ = [
    "CONTAINER_SUFFIX",
    "Action",
    "FileType",
    "Found",
    "Identity",
    "Kind",
    "Outcome",
    "Planned",
    "Reason",
    "Result",
]

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cas.errors import CasError
from cas.model.volume_name import VolumeName

CONTAINER_SUFFIX = ".container"
"""After the names of container volumes of EVE's own releases."""


class Kind(StrEnum):
    """What something was to the old software."""

    DISK = "disk"
    CONTAINER = "container"
    STORE = "store"
    VERIFIED = "verified"
    DOWNLOAD = "download"
    SUFFIXED = "suffixed"
    """A volume with its format after its name."""


class FileType(StrEnum):
    """What something is on disk."""

    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"


class Action(StrEnum):
    """What is to be done."""

    RENAME = "rename"
    COPY = "copy"
    """To a temporary name beside the target, which then gets its name; then the source goes."""
    FINISH = "finish"
    """The copy is complete; the source goes."""
    DISCARD = "discard"
    LEAVE = "leave"


class Reason(StrEnum):
    """Why that is to be done."""

    MATCHED = "matched"
    OLD_STORE = "old-store"
    VERIFIED_DOWNLOAD = "verified-download"
    UNFINISHED_DOWNLOAD = "unfinished-download"
    COPIED_BEFORE = "copied-before"
    ASKED_FOR = "asked-for"
    MERGED = "merged"
    """A newer store has everything that it had."""
    SUFFIXED = "suffixed"
    NO_VOLUME_NAME = "no-volume-name"
    WRONG_TYPE = "wrong-type"
    NO_CONFIG = "no-config"
    UNKNOWN_APP = "unknown-app"
    UNKNOWN_IMAGE = "unknown-image"
    NO_DIGEST = "no-digest"
    STALE_PURGE = "stale-purge"
    NO_VOLUME = "no-volume"
    VOLUME_TAKEN = "volume-taken"
    """Something else in the old places is to become this volume."""
    FOREIGN_TARGET = "foreign-target"
    """Something that no conversion made has the new name."""
    RECREATED = "recreated"
    """It was converted before, and the old software has made it again."""
    STORE_NOT_CONVERTED = "store-not-converted"
    """Its snapshot is in a store that is not converted, or not merged yet."""
    STORE_EXISTS = "store-exists"
    """There is a newer store, whose metadata is never replaced."""
    STORE_LEFT = "store-left"
    """The last merge of it left something, which the explanation tells."""
    NOT_ONE_FILE = "not-one-file"
    BEFORE_VAULT = "before-vault"
    """What becomes of it is decided when the vault is open."""
    NOT_KEPT = "not-kept"
    """Of a kind that nobody needs from here."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file, in which state.

    Args:
        inode: Its number.
        size: Bytes, holes included.
        modified: Nanoseconds since the epoch.
    """

    inode: int
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class Found:
    """Something that lies in an old place.

    Args:
        kind: What it was.
        path: Where.
        type: What it is.
        identity: Which file.
        size: Allocated bytes; of everything in a directory only where it is to be copied.
    """

    kind: Kind
    path: Path
    type: FileType
    identity: Identity
    size: int

    @property
    def is_container(self) -> bool:
        """Whether it is, or should be, a container's directory, whose data is in a store."""
        return self.kind is Kind.CONTAINER or self.path.name.endswith(CONTAINER_SUFFIX)


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done about it.

    Args:
        found: What it is about.
        action: What is to be done.
        reason: Why, for programs.
        explanation: Why, for people.
        target: What it becomes; None where it becomes nothing.
        volume: The volume that it becomes, or would.
        suspects: Volumes that it may be, which nobody can tell.
    """

    found: Found
    action: Action
    reason: Reason
    explanation: str
    target: Path | None = None
    volume: VolumeName | None = None
    suspects: tuple[VolumeName, ...] = ()

    @property
    def needed(self) -> int:
        """Bytes that have to be free for it."""
        return self.found.size if self.action is Action.COPY else 0


class Result(StrEnum):
    """What became of it."""

    MOVED = "moved"
    DISCARDED = "discarded"
    LEFT = "left"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of something.

    Args:
        planned: What was to be done.
        result: What was.
        error: Why it failed.
        digest_before: See :mod:`cas.fsops.replica`; empty where nothing was read.
        digest_after: Of what has the new name.
        sockets: What could not be copied and is of no use.
        flags_lost: What has other inode flags, or another project, than its original had.
    """

    planned: Planned
    result: Result
    error: CasError | None = None
    digest_before: str = ""
    digest_after: str = ""
    sockets: tuple[str, ...] = ()
    flags_lost: tuple[str, ...] = ()
