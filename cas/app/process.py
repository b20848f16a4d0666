"""What is taken from the process: the time, and who runs it."""

__all__ = ["require_root", "utc_now"]

import os
from datetime import UTC, datetime

from cas.errors import DeniedError


def utc_now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


def require_root() -> None:
    """Refuse to go on as anybody else.

    Raises:
        DeniedError: The process is not root.
    """
    if os.geteuid() != 0:
        raise DeniedError(
            "the store belongs to root: layers hold files of every owner and mounting needs "
            "privileges; run this as root"
        )
