"""Decides what becomes of downloads. Pure."""

__all__ = ["plan_download"]

from cas.errors import InvalidNameError
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.upgrade.items import Action, FileType, Found, Kind, Planned, Reason
from cas.upgrade.world import World

_KEPT = frozenset({"appImg.obj", "baseOs.obj"})
_UNFINISHED = frozenset({"pending", "verifier"})


def plan_download(found: Found, layout: Layout, world: World) -> Planned:
    """Plan for a download: what is whole is kept if it can be verified, the rest goes."""
    if found.kind is Kind.DOWNLOAD:
        if found.path.parent.name not in _UNFINISHED:
            text = "it is no download that anybody knows"
            return Planned(found, Action.LEAVE, Reason.NOT_KEPT, text)
        text = "nothing can be said about what it holds; it is downloaded again"
        return Planned(found, Action.DISCARD, Reason.UNFINISHED_DOWNLOAD, text)
    if found.type is not FileType.FILE:
        text = "it does not hold exactly one regular file"
        return Planned(found, Action.LEAVE, Reason.NOT_ONE_FILE, text)
    directory = found.path.parent
    if directory.parent.parent.name not in _KEPT:
        text = f"downloads of kind {directory.parent.parent.name!r} are not kept here"
        return Planned(found, Action.LEAVE, Reason.NOT_KEPT, text)
    try:
        digest = Digest.parse_foreign(directory.name)
    except InvalidNameError as error:
        return Planned(found, Action.LEAVE, Reason.NOT_KEPT, error.message)
    target = layout.verified / digest.hex
    text = "it is verified again and kept, so that it need not be downloaded"
    inode = world.inode(target)
    if inode is not None:
        text = "the verifier has a file of this name, which this one replaces if it is damaged"
        return Planned(found, Action.DISCARD, Reason.COPIED_BEFORE, text, target)
    action = Action.COPY if world.must_copy(found.path, target) else Action.RENAME
    return Planned(found, action, Reason.VERIFIED_DOWNLOAD, text, target)
