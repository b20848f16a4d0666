"""Many callers for a while: memory stays bounded, and nothing is left behind."""

import random
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.settings import Settings
from cas.rpc.client import Client
from tests.support.daemon import mounts_below
from tests.support.images import layered_image
from tests.support.mixed_load import Caller, Gauge
from tests.support.service import Service
from tests.support.stores import assert_nothing_left
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.once]

_CALLERS = 64
_RESIDENT_BYTES = 120 * 1024 * 1024
_POOL_THREADS = 400
"""Both pools of the server when full, gRPC's own threads and those of the process."""

_KEPT_DESCRIPTORS = 16
"""Connections to containerd and the like that stay for the next call."""


def _load(callers: list[Caller], seconds: float) -> Counter[str]:
    with ThreadPoolExecutor(len(callers)) as threads:
        for call in [threads.submit(caller.run, seconds) for caller in callers]:
            call.result()
    return sum((caller.done for caller in callers), Counter())


@pytest.mark.timeout(1200)
def test_service_under_a_mixed_load_stays_as_it_is(
    service: Service, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """64 callers: below 120 MiB resident; no thread, descriptor, lease, mount or file is left."""
    seconds = pytestconfig.getoption("--load-seconds")
    settings, socket = service.settings, service.settings.service_socket
    image, small = (layered_image(3, seed=uuid.uuid4().hex) for _ in range(2))
    with Client.connect(socket) as client:
        client.images.import_archive(image.write_oci_tar(tmp_path / "image.tar"), name="base:1")
    archive = small.write_oci_tar(tmp_path / "small.tar").read_bytes()
    seed = pytestconfig.getoption("--crash-seed")
    callers = [
        Caller(socket, "base:1", archive, random.Random(seed + number))
        for number in range(_CALLERS)
    ]
    gauge = Gauge(service.process.pid)

    with gauge.watching():
        idle, start = gauge.descriptors, gauge.resident_bytes
        _load(callers, seconds / 4)
        warm = gauge.resident_bytes
        done = _load(callers, seconds)

    wait_for(lambda: gauge.descriptors <= idle + _KEPT_DESCRIPTORS)
    print(
        f"steps={dict(done)} peak={gauge.peak_bytes} start={start} warm={warm} "
        f"end={gauge.resident_bytes} threads={gauge.threads} "
        f"descriptors={idle} to {gauge.descriptors}"
    )
    assert gauge.peak_bytes < _RESIDENT_BYTES
    assert gauge.threads < _POOL_THREADS
    _assert_clean(settings)


def _assert_clean(settings: Settings) -> None:
    assert mounts_below(settings.layout.volumes) == []
    with Case.open(settings) as case:
        assert_nothing_left(case.backing)
        assert list(case.volumes.iter_volumes()) == []
        assert [str(finding) for finding in case.check_store().findings] == []
