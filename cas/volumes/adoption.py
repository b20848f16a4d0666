"""Makes volumes that older software made as good as any other, once containerd can be asked.

Their directory has the key of a snapshot and nothing else. That snapshot gets the labels that keep
it and say whose it is, and the volume a record. Until then the volume can be used all the same.
"""

__all__ = ["adopt", "adopt_converted"]

import logging
from contextlib import suppress
from dataclasses import replace

from cas.errors import CasError, InvalidNameError
from cas.model.digest import ChainID
from cas.model.labels import UNFINISHED, VOLUME
from cas.model.volume_name import VolumeName
from cas.model.volume_record import VolumeRecord
from cas.store.backing import Backing
from cas.store.locking import Locks
from cas.volumes.own_snapshots import labels_of
from cas.volumes.records import iter_records, read_record, replace_record

_LOGGER = logging.getLogger(__name__)
_LOCK_SECONDS = 0.2


def adopt_converted(backing: Backing, locks: Locks) -> list[VolumeName]:
    """Adopt what was not adopted yet; what fails is left for the next time.

    Args:
        backing: The store.
        locks: Its locks; the caller holds none of a volume.

    Returns:
        The volumes that were adopted.
    """
    adopted = []
    for record in list(iter_records(backing.layout)):
        if not _may_be_waiting(record):
            continue
        try:
            with locks.volume(record.name, timeout_seconds=_LOCK_SECONDS):
                if _adopt(backing, record.name):
                    _LOGGER.info("converted volume adopted volume=%s", record.name)
                    adopted.append(record.name)
        except CasError as error:
            _LOGGER.warning("volume not adopted volume=%s error=%s", record.name, error)
    return adopted


def adopt(backing: Backing, record: VolumeRecord) -> VolumeRecord:
    """Adopt one volume if that was not done yet; the caller holds its lock.

    After failure it is as before, or a repetition goes on.

    Args:
        backing: The store.
        record: Of the volume, converted or not.

    Returns:
        Its record now.

    Raises:
        SnapshotNotFoundError: It has lost its snapshot.
        NoSpaceError: No room for the record.
        StorageError: Any other failed system call.
    """
    if not _may_be_waiting(record):
        return record
    _adopt(backing, record.name)
    return read_record(backing.layout.volume(record.name), record.name)


def _may_be_waiting(record: VolumeRecord) -> bool:
    return record.converted and record.history is None


def _adopt(backing: Backing, name: VolumeName) -> bool:
    directory = backing.layout.volume(name)
    record = read_record(directory, name)
    info = backing.snapshots.stat(record.snapshot_key)
    if info.labels.get(VOLUME) or info.labels.get(UNFINISHED):
        return False  # done before, or another volume's; or a copy that a kill interrupted
    with suppress(InvalidNameError):
        record = replace(record, chain_id=ChainID.parse(info.parent))
    # The labels last: with them it counts as done.
    replace_record(directory, record)
    backing.snapshots.update_labels(record.snapshot_key, labels_of(backing, record))
    return True
