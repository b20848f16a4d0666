"""The system account that an agent runs as."""

__all__ = ["Account", "find_account", "find_group"]

import grp
import pwd
from dataclasses import dataclass

from cas.errors import LayoutError


@dataclass(frozen=True, slots=True)
class Account:
    """User and primary group.

    Args:
        user: User id.
        group: Group id.
    """

    user: int
    group: int


def find_account(name: str) -> Account:
    """Look an account up by name, or by number.

    Raises:
        LayoutError: There is none; ``cas layout init`` makes it.
    """
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as error:
        raise LayoutError(
            f"there is no account {name!r} for an agent to run as; run 'cas layout init', or name "
            "another under [owners] in the configuration",
            account=name,
        ) from error
    return Account(entry.pw_uid, entry.pw_gid)


def find_group(name: str) -> int:
    """Look a group's id up by name; a number is its own id.

    Raises:
        LayoutError: There is none; ``cas layout init`` makes it.
    """
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise LayoutError(
            f"there is no group {name!r}; run 'cas layout init', or name another under [owners] in "
            "the configuration",
            account=name,
        ) from error
