"""Who may enter, read and write which directory of the layout: acted out, cell by cell."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from cas.errors import LayoutError
from cas.model.settings import Settings
from cas.store.directories import create_directories, find_deviations, require_directories
from tests.support.daemon import persist_directory

_VOLUMEMGR_GROUP = 64020


@dataclass(frozen=True)
class Actor:
    """Somebody with user id, group id and further groups."""

    user: int
    group: int
    groups: tuple[int, ...] = ()


ACTORS = {
    "downloader": Actor(64011, 64011),
    "verifier": Actor(64012, 64012),
    "volumemgr": Actor(64030, 64030, (_VOLUMEMGR_GROUP,)),
    "stranger": Actor(64040, 64040),
}
OWNERS = {
    "root": "root",
    "downloader": str(ACTORS["downloader"].user),
    "verifier": str(ACTORS["verifier"].user),
    "volumemgr": str(_VOLUMEMGR_GROUP),
}
NOBODY: dict[str, str] = {}
MAY = {
    "vault": {"volumemgr": "enter read"},
    "vault/case": NOBODY,
    "vault/volumes": {"volumemgr": "enter read"},
    "vault/downloader": {"downloader": "enter read write", "volumemgr": "enter read"},
    "vault/verifier": {"verifier": "enter read write", "volumemgr": "enter read"},
    "vault/verifier/pending": {"verifier": "enter read write", "volumemgr": "enter read"},
    "vault/verifier/verified": {"verifier": "enter read write", "volumemgr": "enter read"},
    "clear": {"volumemgr": "enter read"},
    "clear/volumes": {"volumemgr": "enter read"},
    "unsealed-vault": NOBODY,
    "vault-keys": NOBODY,
    "checkpoint": NOBODY,
}
"""Agents are put into their directory by root: they could not walk there through the vault."""


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """A layout whose owners are accounts of these tests alone."""
    with persist_directory() as directory:
        directory.chmod(0o755)
        settings = Settings(persist=directory, owners=OWNERS)
        create_directories(settings)
        yield settings


def _enter(place: int) -> None:
    os.fchdir(place)


def _read(place: int) -> None:
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place)
    os.scandir(descriptor).close()


def _write(place: int) -> None:
    os.close(os.open("probe", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=place))
    os.unlink("probe", dir_fd=place)


ACTIONS = {"enter": _enter, "read": _read, "write": _write}


def _allowed(actor: Actor, path: Path) -> str:
    """What an actor who stands before a directory can do with it."""
    place = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    child = os.fork()
    if child == 0:
        allowed = 0
        with suppress(BaseException):
            os.setgroups(actor.groups)
            os.setresgid(actor.group, actor.group, actor.group)
            os.setresuid(actor.user, actor.user, actor.user)
            for number, act in enumerate(ACTIONS.values()):
                with suppress(PermissionError):
                    act(place)
                    allowed |= 1 << number
            os._exit(allowed)
        os._exit(99)
    os.close(place)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 0 <= status < 1 << len(ACTIONS)
    return " ".join(word for number, word in enumerate(ACTIONS) if status & 1 << number)


def test_table_names_every_directory_of_the_layout(settings: Settings) -> None:
    """A directory that is added has to be decided on here."""
    layout = {str(row.path.relative_to(settings.persist)) for row in settings.layout.directories()}
    assert layout == set(MAY)


@pytest.mark.parametrize("directory", MAY)
@pytest.mark.parametrize("who", ACTORS)
def test_actor_may_do_in_a_directory_exactly_what_the_table_says(
    who: str, directory: str, settings: Settings
) -> None:
    """Invariant 9: entered, read and written as each account."""
    assert _allowed(ACTORS[who], settings.persist / directory) == MAY[directory].get(who, "")


@pytest.mark.parametrize("who", ["downloader", "verifier", "stranger"])
def test_actor_outside_of_volumemgr_cannot_walk_through_the_vault(
    who: str, settings: Settings
) -> None:
    """Not even to a directory of his own: somebody with more rights has to put him there."""
    own = settings.layout.downloader if who == "stranger" else settings.layout.vault / who
    child = os.fork()
    if child == 0:
        actor = ACTORS[who]
        os.setgroups(actor.groups)
        os.setresgid(actor.group, actor.group, actor.group)
        os.setresuid(actor.user, actor.user, actor.user)
        try:
            own.stat()
        except PermissionError:
            os._exit(9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("change", ["owner", "group", "mode"])
def test_directory_that_is_not_its_owners_is_named_refused_and_repaired(
    change: str, settings: Settings
) -> None:
    """Whoever was to work there refuses; the repair gives it back. EVE #6264, #6511: odd modes."""
    path = settings.layout.verified
    match change:
        case "owner":
            os.chown(path, ACTORS["stranger"].user, -1)
        case "group":
            os.chown(path, -1, ACTORS["stranger"].group)
        case _:
            path.chmod(0o777)
    [found] = find_deviations(settings)
    assert (found.path, found.problem, found.fixable) == (path, change, True)
    with pytest.raises(LayoutError, match="check --fix"):
        require_directories(settings, (path,))
    assert create_directories(settings, repair=True) == [path]
    assert list(find_deviations(settings)) == []
