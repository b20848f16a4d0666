"""The supervisor, with real containerds and with programs that only pretend to be one."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.errors import (
    ContainerdMissingError,
    DaemonUnavailableError,
    DaemonVersionError,
    InterruptedOperationError,
    InUseError,
    SocketPathError,
    StorageError,
)
from cas.model.digest import Digest
from cas.model.records import LeaseID
from cas.model.settings import Settings
from tests.support.daemon import WAIT_SECONDS, connect, persist_directory, settings_for
from tests.support.waiting import wait_for


@pytest.fixture
def own_settings(containerd_binary: str) -> Iterator[Settings]:
    """Settings of a store that nobody has started yet."""
    with persist_directory() as directory:
        yield settings_for(directory, containerd_binary)


def _program(directory: Path, text: str) -> str:
    path = directory / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def _commands() -> Iterator[str]:
    """The command line of every process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            yield path.read_text(errors="replace")


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"


def _answers(containerd: Containerd) -> bool:
    try:
        containerd.health()
    except DaemonUnavailableError:
        return False
    return True


def test_daemon_started_answers_and_stopped_is_gone(own_settings: Settings) -> None:
    """Between start and stop there is a working containerd, and before and after there is none."""
    daemon = Daemon(own_settings)
    assert daemon.pid is None
    with daemon:
        pid = daemon.pid
        assert pid is not None
        with connect(own_settings) as containerd:
            facts = containerd.facts
            assert facts.version >= (1, 6, 0)
            assert facts.sharing_policy == "shared"
            assert facts.snapshotter_error is None
            assert facts.content_root is not None
            assert facts.content_root.parent == own_settings.layout.case
            assert containerd.blobs_directory == facts.content_root / "blobs" / "sha256"
    assert daemon.pid is None
    assert not Path(f"/proc/{pid}").exists()


def test_daemon_started_or_stopped_twice_is_fine(own_settings: Settings) -> None:
    """The second call changes nothing."""
    daemon = Daemon(own_settings)
    daemon.start()
    pid = daemon.pid
    daemon.start()
    assert daemon.pid == pid
    daemon.stop()
    daemon.stop()
    daemon.kill()


def test_daemon_opens_no_tcp_port(restartable_daemon: Daemon) -> None:
    """The store is reached over its socket only."""
    links = []
    for path in Path(f"/proc/{restartable_daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # a file that was closed meanwhile
            links.append(str(path.readlink()))
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    listening = [
        line.split()[9]
        for table in ("tcp", "tcp6", "udp", "udp6")
        for line in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    assert inodes
    assert not inodes & set(listening)


def test_daemon_root_and_sockets_are_closed_to_others(restartable_daemon: Daemon) -> None:
    """Blobs are readable for everybody who gets to them."""
    layout = restartable_daemon.settings.layout
    assert layout.case.stat().st_mode & 0o077 == 0
    assert restartable_daemon.socket.stat().st_mode & 0o007 == 0


def test_daemon_under_a_strict_umask_makes_readable_snapshots(own_settings: Settings) -> None:
    """Programs of an image run as other users than root."""
    before = os.umask(0o077)
    try:
        with Daemon(own_settings), connect(own_settings) as containerd:
            lease = containerd.leases.create(LeaseID("l"), {}).id
            [mount] = containerd.snapshots.prepare("k", "", lease, {})
            assert Path(mount.source).stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_daemon_log_is_forwarded_line_by_line(own_settings: Settings) -> None:
    """Whoever supervises decides where the log goes."""
    lines: list[str] = []
    with Daemon(own_settings, log=lines.append):
        pass
    assert any("containerd successfully booted" in line for line in lines)
    assert not any("\n" in line for line in lines)


def test_daemon_on_a_held_root_is_refused_naming_the_holder(restartable_daemon: Daemon) -> None:
    """A second containerd would wait for ever without a word; the first one is not disturbed."""
    second = Daemon(restartable_daemon.settings)
    with pytest.raises(InUseError, match=str(restartable_daemon.pid)):
        second.start()
    assert second.pid is None
    with connect(restartable_daemon.settings) as containerd:
        containerd.health()


def test_daemon_on_a_held_root_with_another_socket_is_refused(restartable_daemon: Daemon) -> None:
    """It is the root that has one owner."""
    settings = restartable_daemon.settings
    other = replace(settings, address=settings.layout.run / "other.sock")
    with pytest.raises(InUseError):
        Daemon(other).start()


def test_daemon_without_a_binary_says_what_to_install(own_settings: Settings) -> None:
    """Nothing is made on disk for it."""
    settings = replace(own_settings, containerd_binary="no-such-containerd")
    with pytest.raises(ContainerdMissingError, match="install containerd"):
        Daemon(settings).start()
    assert not settings.layout.run.exists()


def test_daemon_with_a_binary_that_does_not_run_is_missing(own_settings: Settings) -> None:
    """A file without a program in it is no containerd."""
    path = own_settings.persist / "program"
    path.write_bytes(b"\x7fELF nothing")
    path.chmod(0o755)
    with pytest.raises(ContainerdMissingError, match="cannot run"):
        Daemon(replace(own_settings, containerd_binary=str(path))).start()


def test_daemon_with_a_too_long_socket_path_names_the_ways_out(own_settings: Settings) -> None:
    """The limit is the kernel's."""
    settings = replace(own_settings, persist=own_settings.persist / ("x" * 100))
    with pytest.raises(SocketPathError, match=r"--persist.*--address"):
        Daemon(settings).start()


def test_daemon_that_ends_at_once_is_reported_with_its_last_words(own_settings: Settings) -> None:
    """Status and log say why."""
    program = _program(own_settings.persist, "echo cannot go on >&2; exit 3")
    with pytest.raises(DaemonUnavailableError, match=r"status 3.*cannot go on"):
        Daemon(replace(own_settings, containerd_binary=program)).start()


def _listening(settings: Settings, then: str) -> Settings:
    """One whose containerd takes one connection, and then does something else than to answer."""
    text = "import os, socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
    text += f"s.listen(); s.accept(); {then}"
    program = _program(settings.persist, f"exec {sys.executable} -c '{text}' {settings.socket}")
    return replace(settings, containerd_binary=program)


def test_daemon_that_ends_between_listening_and_answering_is_not_waited_for(
    own_settings: Settings,
) -> None:
    """Nobody else will answer there."""
    with pytest.raises(DaemonUnavailableError, match="status 3"):
        Daemon(_listening(own_settings, "os._exit(3)")).start()


def test_daemon_that_does_not_answer_is_not_waited_for_by_one_who_stops(
    own_settings: Settings,
) -> None:
    """The service can be stopped in any moment."""
    stop = threading.Event()
    accepted = own_settings.persist / "accepted"
    then = f's.close(); open("{accepted}", "w"); time.sleep(1000)'

    def set_stop() -> None:
        wait_for(accepted.exists)
        stop.set()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(set_stop)
        with pytest.raises(InterruptedOperationError):
            Daemon(_listening(own_settings, then)).start(stop)
        waiting.result()


@pytest.mark.slow
def test_daemon_that_never_listens_is_given_up_and_ended(own_settings: Settings) -> None:
    """A start is bounded by wait_seconds, and leaves no child."""
    os.mkfifo(own_settings.persist / "pipe")
    program = _program(own_settings.persist, f"read line <{own_settings.persist}/pipe")
    settings = replace(own_settings, containerd_binary=program, wait_seconds=0.2)
    with pytest.raises(DaemonUnavailableError, match="did not listen"):
        Daemon(settings).start()
    assert not any(program in command for command in _commands())


@pytest.mark.slow
def test_daemon_that_is_slow_is_waited_for(own_settings: Settings) -> None:
    """A loaded device takes its time."""
    real = own_settings.containerd_binary
    program = _program(own_settings.persist, f'sleep 0.5; exec {real} "$@"')
    with (
        Daemon(replace(own_settings, containerd_binary=program)),
        connect(own_settings) as containerd,
    ):
        containerd.health()


def test_daemon_with_a_broken_database_ends_instead_of_running_without(
    own_settings: Settings,
) -> None:
    """containerd by itself would serve health and version, and nothing else."""
    with Daemon(own_settings):
        pass
    database = own_settings.layout.case / "io.containerd.metadata.v1.bolt" / "meta.db"
    database.write_bytes(b"x" * 65536)
    with pytest.raises(DaemonUnavailableError, match="bolt"):
        Daemon(own_settings).start()


def test_daemon_with_an_emptied_identity_starts_with_a_new_one(own_settings: Settings) -> None:
    """A power cut leaves the file empty; containerd cannot introspect then."""
    with Daemon(own_settings):
        pass
    identity = own_settings.layout.case / "io.containerd.grpc.v1.introspection" / "uuid"
    identity.parent.mkdir(exist_ok=True)
    identity.write_bytes(b"")
    with Daemon(own_settings):
        assert len(identity.read_text()) == 36


def test_daemon_with_an_unknown_snapshotter_is_unsuitable(own_settings: Settings) -> None:
    """A store without a snapshotter is found at the start and not at the first layer."""
    daemon = Daemon(replace(own_settings, snapshotter="nothing"))
    with pytest.raises(DaemonVersionError, match=r"no snapshotter 'nothing', only .*overlayfs"):
        daemon.start()
    assert daemon.pid is None


def test_daemon_on_an_unwritable_persist_is_a_storage_error(own_settings: Settings) -> None:
    """A file in the way of a directory is named."""
    own_settings.layout.run.write_bytes(b"")
    with pytest.raises(StorageError, match=str(own_settings.layout.run)):
        Daemon(own_settings).start()


def test_daemon_killed_keeps_what_was_committed(restartable_daemon: Daemon) -> None:
    """Metadata survives, and so do uncommitted writes."""
    with connect(restartable_daemon.settings) as containerd:
        lease = containerd.leases.create(LeaseID("l"), {}).id
        containerd.content.put("r", lease, b"kept", Digest.of(b"kept"), {})

        restartable_daemon.kill()
        with pytest.raises(DaemonUnavailableError):
            containerd.health()
        restartable_daemon.start()

        _wait_for(lambda: _answers(containerd), "the connection to come back")
        assert containerd.content.read_all(Digest.of(b"kept"), limit=4) == b"kept"


@pytest.mark.slow
def test_run_forever_killed_containerd_is_started_again(own_settings: Settings) -> None:
    """Until somebody asks it to stop."""
    daemon, stop = Daemon(own_settings), threading.Event()
    daemon.start()
    supervisor = threading.Thread(target=daemon.run_forever, args=(stop,))
    supervisor.start()
    try:
        first = daemon.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        _wait_for(lambda: daemon.pid not in (None, first), "the second start")
        with connect(own_settings) as containerd:
            containerd.health()
    finally:
        stop.set()
        supervisor.join(WAIT_SECONDS)
    assert not supervisor.is_alive()
    assert daemon.pid is None


def test_run_forever_asked_to_stop_before_stops_at_once(own_settings: Settings) -> None:
    """A stop that comes early is not lost."""
    stop = threading.Event()
    stop.set()
    daemon = Daemon(own_settings)
    daemon.run_forever(stop)
    assert daemon.pid is None


def test_stop_of_a_frozen_containerd_kills_it(restartable_daemon: Daemon) -> None:
    """The grace ends."""
    pid = restartable_daemon.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    restartable_daemon.stop(grace_seconds=0.1)
    assert not Path(f"/proc/{pid}").exists()


_QUIET_PROGRAM = """
import subprocess, sys
from pathlib import Path
from cas.containerd.daemon import Daemon
from cas.errors import DaemonUnavailableError
from tests.support.daemon import connect, settings_for

settings = settings_for(Path(sys.argv[1]), sys.argv[2])
with Daemon(settings) as daemon, connect(settings) as containerd:
    subprocess.run(["true"], check=True)
    daemon.kill()
    try:
        containerd.health()
    except DaemonUnavailableError:
        daemon.start()
"""


def test_connection_through_a_restart_prints_nothing(own_settings: Settings) -> None:
    """Standard error belongs to whoever calls us; gRPC does not write there."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _QUIET_PROGRAM,
            own_settings.persist,
            own_settings.containerd_binary,
        ],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_connect_without_a_socket_says_how_to_start_one(tmp_path: Path) -> None:
    """The way out is in the message."""
    with pytest.raises(DaemonUnavailableError, match="cas containerd run"):
        Containerd.connect(tmp_path / "s", namespace="t", snapshotter="overlayfs")


def test_connect_to_a_dead_socket_fails_at_once(restartable_daemon: Daemon) -> None:
    """A socket file that a killed containerd left is not a containerd."""
    restartable_daemon.kill()
    assert restartable_daemon.socket.exists()
    settings = replace(restartable_daemon.settings, wait_seconds=0.0)
    with pytest.raises(DaemonUnavailableError):
        connect(settings)


def test_connect_waits_for_a_containerd_that_comes_up(own_settings: Settings) -> None:
    """Services may be started in any order."""
    daemon = Daemon(own_settings)
    starter = threading.Timer(0.2, daemon.start)
    starter.start()
    try:
        with connect(own_settings) as containerd:
            containerd.health()
    finally:
        starter.join()
        daemon.stop()


def test_connect_under_an_odd_path_works(containerd_binary: str) -> None:
    """Blanks, percent signs and number signs are part of paths."""
    with persist_directory() as directory:
        settings = settings_for(directory / "a b%20#?ä", containerd_binary)
        with Daemon(settings), connect(settings) as containerd:
            containerd.health()
