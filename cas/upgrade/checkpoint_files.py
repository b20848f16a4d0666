"""Finds a device configuration that can be read, among the copies that may be there."""

__all__ = ["ReadCheckpoint", "read_checkpoint"]

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cas.errors import CasError, CheckpointError, LimitExceededError, SourceNotFoundError
from cas.fsops.reading import open_regular
from cas.upgrade.checkpoint import MAX_CHECKPOINT_BYTES, parse_checkpoint
from cas.upgrade.device_config import DeviceConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadCheckpoint:
    """A configuration and where it was.

    Args:
        config: The configuration.
        path: The file it was read from.
    """

    config: DeviceConfig
    path: Path


def read_checkpoint(paths: Sequence[Path]) -> ReadCheckpoint:
    """Read the first file that is there and can be read.

    Raises:
        CheckpointError: There is none; says what is wrong with each that is there.
    """
    problems = []
    for path in paths:
        try:
            return ReadCheckpoint(parse_checkpoint(_read(path)), path)
        except SourceNotFoundError:
            continue
        except CasError as error:
            problems.append(f"{str(path)!r}: {error.message}")
            _log.warning("configuration unreadable path=%s error=%s", path, error)
    if not problems:
        problems.append(f"there is no {str(paths[0])!r}, and no other copy of it")
    raise CheckpointError(
        "which old drive is which volume cannot be told without the device's configuration: "
        + "; ".join(problems),
        path=paths[0],
    )


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        if file.size > MAX_CHECKPOINT_BYTES:
            raise LimitExceededError(
                f"it has {file.size} bytes, more than {MAX_CHECKPOINT_BYTES}", path=path
            )
        content = bytearray()
        for chunk in file.chunks():
            content += chunk
            if len(content) > MAX_CHECKPOINT_BYTES:
                raise LimitExceededError(f"it grew beyond {MAX_CHECKPOINT_BYTES} bytes", path=path)
    return bytes(content)
