"""A server in front of an opened store, in whatever process wants one."""

__all__ = ["PATIENT", "server_of"]

from functools import partial
from pathlib import Path
from typing import Any

from cas.app import Case, open_vaults
from cas.rpc.server import Server
from cas.rpc.server.registry import Patience

PATIENT = Patience(stalled=300, wanted=300, first=300)
"""More than a test lasts: a machine that stands still for a while makes no caller a stalled one."""


def server_of(case: Case, socket: Path, *, patience: Patience = PATIENT, **options: Any) -> Server:
    """A server of a store that is open, unless told otherwise; not started."""
    settings = case.settings
    vaults = partial(open_vaults, settings)
    options = {"store": case, "patience": patience, **options}
    return Server(settings, socket, vaults=vaults, **options)
