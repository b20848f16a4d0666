"""Snapshots of volumes: the same time whatever a volume holds."""

__all__ = ["snapshots"]

import os
import time
from collections.abc import Iterator
from functools import partial

from cas.app import Case
from cas.model.volume_name import VolumeName
from hack.bench_setting import IMAGE, MIB, Bench, Row, forget_image, image_archive, new_name

_TIMES = 10


def snapshots(bench: Bench) -> Iterator[Row]:
    """Taking one, returning to it, and the next volume of the image; of little and of much data."""
    archive = image_archive(bench)
    namespace = bench.namespace()
    with bench.open(namespace) as case:
        case.images.import_archive(archive)
        for size in (1, 1000 // bench.scale):
            yield from _with_data(case, size)
        for status in list(case.volumes.iter_volumes()):
            case.volumes.remove(status.name)
    forget_image(bench, namespace)


def _with_data(case: Case, size: int) -> Iterator[Row]:
    name = VolumeName.parse(new_name())
    taking = Row(f"snapshot of a volume of {size} MiB, library", "s")
    returning = Row(f"rollback of a volume of {size} MiB, library", "s")
    following = Row(f"volume beside one of {size} MiB, library", "s")
    root = case.volumes.prepare(name, IMAGE, activate=True).rootfs
    with (root / "data").open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(MIB))
    case.volumes.deactivate(name)
    for number in range(_TIMES):
        create = partial(case.volume_snapshots.create, [name], f"s{number}")
        roll_back = partial(case.volume_snapshots.roll_back, [name], f"s{number}")
        prepare = partial(case.volumes.prepare, VolumeName.parse(new_name()), IMAGE)
        for row, work in ((taking, create), (returning, roll_back), (following, prepare)):
            start = time.monotonic()
            work()
            row.ours.append(time.monotonic() - start)
    yield from (taking, returning, following)
