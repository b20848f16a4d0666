"""Decides whether a download goes or replaces what has its name, by what both of them hold."""

__all__ = ["free_target", "holds"]

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cas.fsops.durable import remove_file
from cas.fsops.reading import open_regular
from cas.model.digest import Digest
from cas.store.content.hashing import digest_of
from cas.upgrade.items import Action, Kind, Planned, Reason

_IS_WHOLE = "the verifier has this content already"
_NO_LONGER = "the verifier's file of this content is gone or damaged, and this one takes its place"


def free_target(planned: Planned, is_whole: Callable[[Path], bool]) -> Planned:
    """Let a verified download go if its target holds its content, else let it get that name.

    A target that holds something else, as after a power cut, goes if the download is whole; if
    neither is, both stay. Everything that is no verified download stays as planned.

    Args:
        planned: What was planned when nothing had been read.
        is_whole: Whether a file holds what the download's digest says.

    Raises:
        StorageError: The target is no regular file with one name, or a system call failed.
    """
    target = planned.target
    if planned.found.kind is not Kind.VERIFIED or target is None:
        return planned
    if os.path.lexists(target):
        if is_whole(target):
            return _decided(planned, Action.DISCARD, Reason.COPIED_BEFORE, _IS_WHOLE)
        if is_whole(planned.found.path):
            remove_file(target)
    if planned.action is not Action.DISCARD:
        return planned
    # Where no rename leads to the target it becomes a copy.
    return _decided(planned, Action.RENAME, Reason.VERIFIED_DOWNLOAD, _NO_LONGER)


def _decided(planned: Planned, action: Action, reason: Reason, text: str) -> Planned:
    return replace(planned, action=action, reason=reason, explanation=text)


def holds(path: Path, digest: Digest, *, advance: Callable[[int], object]) -> bool:
    """Read a file and say whether it has just these bytes.

    Args:
        path: A regular file with one name; no link is followed.
        digest: Of what it should hold.
        advance: Told how many bytes more were read; may stop it.

    Raises:
        SourceNotFoundError: There is no such file.
        StorageError: It is something else, or cannot be read.
    """

    def told(chunk: bytes) -> bytes:
        advance(len(chunk))
        return chunk

    with open_regular(path) as file:
        actual, _ = digest_of(map(told, file.chunks()))
    return actual == digest
