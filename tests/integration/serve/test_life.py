"""The life of the service: start, readiness, stop, kill, and what it tells meanwhile."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from cas._gen.cas.v1 import store_pb2, store_pb2_grpc
from cas.containerd.daemon import Daemon
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName
from cas.store.directories import create_directories
from tests.support.daemon import WAIT_SECONDS
from tests.support.frozen import freeze
from tests.support.service import Service, StayingProcess, code_of, held_back
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


def _recover(service: Service) -> None:
    """A call that goes through to containerd."""
    with service.channel() as channel:
        store_pb2_grpc.StoreStub(channel).Recover(store_pb2.RecoverRequest(), timeout=WAIT_SECONDS)


def test_service_is_ready_when_it_answers(service: Service) -> None:
    """Not a moment earlier: whoever waits for it calls at once."""
    assert service.health() == "SERVING"
    _recover(service)
    told = service.notify.listen()
    assert told[0] == "STATUS=starting"
    assert told.count("READY=1") == 1


def test_socket_is_for_root_and_its_group_only(own_settings: Settings) -> None:
    """Mode 0660, and the group that the layout names."""
    owners = {**own_settings.owners, "volumemgr": "daemon"}
    settings = replace(own_settings, owners=owners)
    create_directories(settings, repair=True)
    with Service(settings) as service:
        service.start()
        found = own_settings.service_socket.stat()
        assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o660, 0, 1)


def test_service_asked_to_stop_ends_in_order(service: Service) -> None:
    """It says so, its containerd ends, nothing is left, and the status is 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        service.process.signal(number)
        assert service.process.wait() == 0
        assert "STOPPING=1" in service.notify.listen()
        assert service.containerd_pid is None
        assert not service.settings.service_socket.exists()
        service.start()


def test_leftovers_of_downloads_outlive_one_start_and_not_two(own_settings: Settings) -> None:
    """So that a reboot does not cost what came, and what nobody goes on with does not stay."""
    layout, name = own_settings.layout, TransferName(uuid4(), Digest.of(b"on its way"))
    left = [
        layout.downloader / f"{name}.partial",
        layout.downloader / f"{name}.progress",
        layout.pending / str(name),
        layout.verified / name.digest.hex,
    ]
    for path in left:
        path.write_bytes(b"x")
    with Service(own_settings) as service:
        service.start()
        assert all(path.exists() for path in left)
        service.process.signal(signal.SIGTERM)
        assert service.process.wait() == 0
        service.start()
        assert not any(path.exists() for path in left)


def test_second_service_on_a_persist_directory_is_refused(service: Service) -> None:
    """Also with another socket; the first one notices nothing."""
    other = service.settings.persist / "other.sock"
    for arguments in ([], ["--service-address", other]):
        with StayingProcess(service.config, *arguments, "serve") as second:
            assert second.wait() == 4
            assert "[in-use]" in second.log
            assert str(service.process.pid) in second.log
    assert service.health() == "SERVING"


def test_killed_service_is_followed_by_another(service: Service) -> None:
    """Socket, lock and containerd of the killed one are in nobody's way."""
    for _ in range(2):
        service.process.kill()
        assert service.settings.service_socket.exists()
        orphan = service.containerd_pid
        assert orphan is not None
        service.start()
        assert service.containerd_pid not in (None, orphan)
        assert service.health() == "SERVING"


def test_containerd_that_dies_comes_back_and_meanwhile_health_says_no(
    own_settings: Settings,
) -> None:
    """Calls fail with a status that invites to try again, and recovery runs afterwards."""
    hold = own_settings.persist / "hold"
    with Service(held_back(own_settings)) as service:
        service.start()
        hold.touch()
        service.kill_containerd()
        service.wait_for_health("NOT_SERVING")
        with pytest.raises(grpc.RpcError) as failure:
            _recover(service)
        assert code_of(failure.value) == "UNAVAILABLE"
        service.notify.wait_for("STATUS=containerd does not answer")
        service.notify.forget()
        hold.unlink()
        service.wait_for_health("SERVING")
        _recover(service)
        service.notify.wait_for("STATUS=serving")


def test_containerd_that_cannot_be_started_again_ends_the_service(
    own_settings: Settings,
) -> None:
    """A service manager has to know; nothing is left running."""
    settings = held_back(own_settings)
    with Service(settings) as service:
        service.start()
        Path(settings.containerd_binary).unlink()
        service.kill_containerd()
        assert service.process.wait() == 8
        assert "[containerd-missing]" in service.process.log
        assert not own_settings.service_socket.exists()


def test_watchdog_is_fed_only_while_containerd_answers(own_settings: Settings) -> None:
    """A frozen containerd is as good as none; one that thaws is good again."""
    with Service(own_settings) as service:
        service.start(verbose=True, environment={"WATCHDOG_USEC": "300000"})
        service.notify.wait_for("WATCHDOG=1")
        pid = service.containerd_pid
        assert pid is not None
        freeze(pid)
        try:
            service.wait_for_health("NOT_SERVING")
            # What was answered just before by containerd is told of by now, whoever asked.
            _await_looks(service, 3)
            service.notify.forget()
            _await_looks(service, 3)
            assert "WATCHDOG=1" not in service.notify.listen()
        finally:
            os.kill(pid, signal.SIGCONT)
        service.wait_for_health("SERVING")
        service.notify.wait_for("WATCHDOG=1")


def _await_looks(service: Service, count: int) -> None:
    """Wait until containerd was looked at so many times more."""
    before = service.process.log.count("list leases")
    wait_for(lambda: service.process.log.count("list leases") >= before + count)


def test_service_on_a_containerd_of_others_leaves_it_running(
    own_settings: Settings,
) -> None:
    """It neither starts nor stops it, and comes back with it."""
    address = own_settings.persist / "others.sock"
    with Daemon(replace(own_settings, address=address)) as others:
        with Service(own_settings, address=str(address)) as service:
            service.start()
            assert service.containerd_pid == others.pid
            others.kill()
            service.wait_for_health("NOT_SERVING")
            others.start()
            service.wait_for_health("SERVING")
            service.process.signal(signal.SIGTERM)
            assert service.process.wait() == 0
        assert others.is_running()


def test_service_without_a_layout_is_refused(own_settings: Settings) -> None:
    """It does not make directories with owners of its own choice.

    EVE #1167: those of volumes were missing on a fresh device, and that showed much later.
    """
    own_settings.layout.case.rmdir()
    with Service(own_settings) as service:
        service.begin()
        assert service.process.wait() == 9
        assert "[layout]" in service.process.log
        assert service.containerd_pid is None


def test_log_tells_which_lines_belong_to_one_call(own_settings: Settings) -> None:
    """A number per call, which the calls to containerd have that it leads to."""
    with Service(own_settings) as service:
        service.start(verbose=True)
        for _ in range(2):
            _recover(service)
        lines = service.process.log.splitlines()
        ends = [line for line in lines if "call ended method=/cas.v1.Store/Recover code=OK" in line]
        numbers = [line.rpartition(" request=")[2] for line in ends]
        assert len(set(numbers)) == 2
        for number in numbers:
            own = [line for line in lines if line.endswith(f" request={number}")]
            assert any("containerd call action='list leases'" in line for line in own)


def test_metrics_tell_of_the_containerd_that_died(own_settings: Settings) -> None:
    """They are served beside the socket of the service, also while containerd is away."""
    with Service(own_settings) as service:
        service.start_told()
        service.kill_containerd()
        wait_for(lambda: service.tells("cas_containerd_restarts_total 1.0"))
        wait_for(lambda: service.counted('cas_recoveries_total{outcome="done"}') >= 2)
        wait_for(lambda: service.tells("cas_containerd_up 1.0"))
