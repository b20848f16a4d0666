"""A server in front of an opened store, in whatever process wants one."""

__all__ = ["server_of"]

from functools import partial
from pathlib import Path
from typing import Any

from cas.app import Case, open_vaults
from cas.rpc.server import Server


def server_of(case: Case, socket: Path, **options: Any) -> Server:
    """A server of a store that is open, unless told otherwise; not started."""
    settings = case.settings
    vaults = partial(open_vaults, settings)
    return Server(settings, socket, vaults=vaults, **{"store": case, **options})
