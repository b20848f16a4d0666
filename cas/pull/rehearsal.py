"""Both agents started once and asked nothing, to know what a machine lacks before anybody pulls."""

__all__ = ["rehearse_confinement"]

import logging
from functools import partial

from cas.datastores.settings import SourceSettings
from cas.downloader.downloader import Downloader
from cas.errors import CasError
from cas.model.settings import Settings
from cas.verifier.verifier import Verifier

_log = logging.getLogger(__name__)

_NOWHERE = SourceSettings(url="https://localhost")
"""No connection is made to it."""


def rehearse_confinement(settings: Settings) -> None:
    """Start and end both agents; what cannot be had of their confinement is told in a warning.

    Agents that cannot be started at all are told the same way: all but pulling works without.

    Raises:
        CasError: The first of these, where ``require_confinement`` makes them fatal.
    """
    starts = (partial(Verifier, settings), partial(Downloader, settings, _NOWHERE))
    for start in starts:
        try:
            with start() as agent:
                agent.missing()
        except CasError as error:
            if settings.require_confinement:
                raise
            _log.warning("agent cannot be started error=%s", error)
