"""Whether a process of somebody else's still runs, asked while it may end at any moment."""

__all__ = ["runs"]

from pathlib import Path


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is not just waiting to be buried."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends while it is read
        return False
    return told.rpartition(")")[2].split()[0] not in "ZX"
