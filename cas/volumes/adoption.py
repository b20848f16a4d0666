"""Makes volumes that older software made as good as any other, once containerd can be asked.

Their directory has the key of a snapshot and nothing else. That snapshot gets the labels that keep
it and say whose it is, and the volume a record. Until then the volume can be used all the same.
"""

__all__ = ["adopt_converted"]

import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from cas.errors import CasError, InvalidNameError
from cas.model.digest import ChainID
from cas.model.labels import VOLUME
from cas.model.volume_name import VolumeName
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.volumes.own_snapshots import labels_of
from cas.volumes.records import iter_records, read_record, replace_record

_LOGGER = logging.getLogger(__name__)
_LOCK_SECONDS = 0.2


def adopt_converted(
    backing: Backing, locks: Locks, names: Collection[VolumeName] | None = None
) -> list[VolumeName]:
    """Adopt what was not adopted yet; what fails is left for the next time.

    Args:
        backing: The store.
        locks: Its locks; the caller holds none of a volume.
        names: Of these volumes only.

    Returns:
        The volumes that were adopted.
    """
    adopted = []
    for record in list(iter_records(backing.layout)):
        if not record.converted or record.history is not None:
            continue
        if names is not None and record.name not in names:
            continue
        try:
            with locks.volume(record.name, timeout_seconds=_LOCK_SECONDS):
                if _adopt(backing, record.name):
                    _LOGGER.info("converted volume adopted volume=%s", record.name)
                    adopted.append(record.name)
        except CasError as error:
            _LOGGER.warning("volume not adopted volume=%s error=%s", record.name, error)
    return adopted


def _adopt(backing: Backing, name: VolumeName) -> bool:
    directory = backing.layout.volume(name)
    record = read_record(directory, name)
    info = backing.snapshots.stat(record.snapshot_key)
    if info.labels.get(VOLUME):
        return False  # done before, or another volume's
    with suppress(InvalidNameError):
        record = replace(record, chain_id=ChainID.parse(info.parent))
    # The labels last: with them it counts as done.
    replace_record(directory, record)
    backing.snapshots.update_labels(record.snapshot_key, labels_of(backing, record))
    return True
