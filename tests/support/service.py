"""The processes that stay, as a service manager runs them: started, watched, killed."""

__all__ = [
    "NotifySocket",
    "Service",
    "StayingProcess",
    "code_of",
    "held_back",
    "service_configuration",
]

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

import grpc
from grpc_health.v1 import health_pb2

from cas.containerd.root_directory import find_root_holder
from cas.daemon.orphan import end_orphan
from cas.model.settings import Settings
from tests.support.daemon import WAIT_SECONDS, unmount_below
from tests.support.waiting import wait_for

_ROOT = Path(__file__).parents[2]


def service_configuration(directory: Path, settings: Settings, **more: object) -> Path:
    """Write a configuration for a service that supervises a containerd of its own."""
    path = directory / "service.toml"
    owners = "".join(f'{role} = "{name}"\n' for role, name in settings.owners.items())
    given = "".join(f"{key} = {value!r}\n" for key, value in more.items())
    path.write_text(
        f'persist = "{settings.persist}"\nnamespace = "{settings.namespace}"\n'
        f'containerd_binary = "{settings.containerd_binary}"\n'
        f"wait_seconds = {settings.wait_seconds}\n{given}[owners]\n{owners}"
    )
    return path


def held_back(settings: Settings) -> Settings:
    """The same store, whose containerd waits at its start as long as a file ``hold`` is there."""
    program = settings.persist / "containerd-held-back"
    program.write_text(
        f"#!/bin/sh\nwhile [ -e {settings.persist}/hold ]; do sleep 0.02; done\n"
        f'exec {settings.containerd_binary} "$@"\n'
    )
    program.chmod(0o755)
    return replace(settings, containerd_binary=str(program))


class StayingProcess:
    """``cas serve`` or ``cas containerd run`` in a process of its own; a context manager.

    Args:
        config: Written by :func:`service_configuration`.
        arguments: Of the command.
        environment: In addition to this process's.
        module: That is run.
    """

    def __init__(
        self,
        config: Path,
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        module: str = "cas",
    ) -> None:
        self._log = config.parent / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "--config", config, *map(str, arguments)],
                cwd=_ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """Of the command, not of its containerd."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def is_running(self) -> bool:
        """Whether it lives."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would; its containerd lives on."""
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for its end; gives the exit status, below 0 for a signal."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            error.add_note(self.log)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running():
            self.signal(signal.SIGTERM)
            try:
                self.wait()
            except subprocess.TimeoutExpired:
                self.kill()
                raise


class NotifySocket:
    """What a service manager hears; a context manager.

    Args:
        path: Where it listens.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def listen(self) -> list[str]:
        """Take in what has come; gives everything heard so far, an assignment each."""
        while True:
            try:
                message = self._socket.recv(4096)
            except BlockingIOError:
                return self.heard
            self.heard += message.decode().splitlines()

    def wait_for(self, assignment: str) -> None:
        """Wait until it has been heard."""
        wait_for(lambda: assignment in self.listen())

    def forget(self) -> None:
        """Begin anew."""
        self.listen()
        self.heard.clear()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def code_of(error: grpc.RpcError) -> str:
    """Name of the status with which a call failed."""
    assert isinstance(error, grpc.Call)
    return str(error.code().name)


class Service:
    """``cas serve`` on a store of its own; a context manager that ends it.

    Args:
        settings: Of the store; the layout is there.
        more: Keys of the configuration.
    """

    def __init__(self, settings: Settings, **more: object) -> None:
        self.settings = settings
        self.config = service_configuration(settings.persist, settings, **more)
        self.notify = NotifySocket(settings.persist / "notify.sock")
        self._process: StayingProcess | None = None

    @property
    def process(self) -> StayingProcess:
        """The one that runs, or ran last."""
        assert self._process is not None, "the service was not started"
        return self._process

    @property
    def containerd_pid(self) -> int | None:
        """The process that holds the store's database."""
        holder = find_root_holder(self.settings.layout.case)
        return holder.pid if holder else None

    def start(
        self,
        *arguments: object,
        verbose: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it and wait until it says that it is ready."""
        self.begin(*arguments, verbose=verbose, environment=environment)
        wait_for(lambda: not self.process.is_running() or "READY=1" in self.notify.listen())
        assert self.process.is_running(), self.process.log

    def begin(
        self,
        *arguments: object,
        verbose: bool = False,
        environment: Mapping[str, str] | None = None,
        module: str = "cas",
    ) -> None:
        """Start it, or a module that is ``cas`` for the rest."""
        self.notify.forget()
        given = {"NOTIFY_SOCKET": str(self.notify.path), **(environment or {})}
        command = [*(["-v"] if verbose else []), "serve", *arguments]
        self._process = StayingProcess(self.config, *command, environment=given, module=module)

    def kill_containerd(self) -> None:
        """Kill its containerd and wait for the end of that."""
        pid = self.containerd_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.containerd_pid != pid)

    def start_told(self, *arguments: object) -> None:
        """Start it so that its metrics can be asked for."""
        self.start("--metrics-address", self.settings.persist / "metrics.sock", *arguments)

    def tells(self, line: str) -> bool:
        """Whether a line is among its metrics."""
        return line in self.metrics()

    def counted(self, name: str) -> float:
        """The value of one of its metrics; 0 if there is none."""
        values = dict(line.rpartition(" ")[::2] for line in self.metrics())
        return float(values.get(name, 0))

    def metrics(self) -> list[str]:
        """What it tells to Prometheus, line by line."""
        command = ["curl", "--silent", "--fail", "http://localhost/metrics", "--unix-socket"]
        command.append(str(self.settings.persist / "metrics.sock"))
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    def health(self) -> str:
        """What the standard health service says; the status of the call if it fails."""
        with self.channel() as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                answer = check(health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS)
            except grpc.RpcError as error:
                return code_of(error)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    def wait_for_health(self, status: str) -> None:
        """Wait until health says it."""
        wait_for(lambda: self.health() == status)

    def channel(self) -> grpc.Channel:
        """A new connection, not yet made."""
        return grpc.insecure_channel(f"unix:{self.settings.service_socket}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process is not None:
                with self._process:  # ends it
                    pass
        finally:
            end_orphan(self.settings.layout.case)
            self.notify.close()
            unmount_below(self.settings.persist)
