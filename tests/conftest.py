"""Fixtures of all tests: a real containerd for the session, a namespace per test.

``--containerd PATH`` chooses the binary; ``--containerd-address SOCKET --persist DIR`` uses a
containerd that runs already, for example in Docker, with its root at ``DIR/vault/case``.
"""

import logging
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.model.settings import Settings
from cas.store.directories import create_directories
from tests.support.daemon import (
    connect,
    empty_layout,
    empty_namespace,
    mounts_below,
    persist_directory,
    private_daemon,
    settings_for,
)
from tests.support.loopfs import LoopFileSystem
from tests.support.swtpm import SoftwareTpm
from tests.support.vaults import VaultMachine

pytest_plugins = ["tests.support.published"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options that choose a containerd."""
    group = parser.getgroup("containerd")
    group.addoption("--containerd", default="containerd", metavar="PATH", help="binary to test")
    group.addoption("--containerd-address", metavar="SOCKET", help="containerd that runs already")
    group.addoption("--persist", metavar="DIR", help="persist directory of that containerd")
    parser.addoption(
        "--load-seconds", type=float, default=8, metavar="S", help="of load (default 8)"
    )
    parser.addoption(
        "--crash-seed", type=int, default=1, metavar="N", help="of random moments (default 1)"
    )
    parser.addoption(
        "--campaign-seconds",
        type=float,
        default=20.0,
        metavar="S",
        help="how long random calls and kills of the service go on (default 20)",
    )
    parser.addoption(
        "--every-step",
        action="store_true",
        help="power cuts, full disks and kills: at every step where otherwise at some",
    )
    parser.addoption(
        "--fuzz-seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="processor time for damaged configurations, beside the usual ones (default 0)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse half of an external containerd; let Ctrl-C mean what it means in a terminal."""
    # A shell starts background jobs deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (config.getoption("--containerd-address") is None) != (
        config.getoption("--persist") is None
    ):
        raise pytest.UsageError("--containerd-address and --persist belong together")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what the containerd to test has no part in, so that it is not repeated for each."""
    # Beside one that runs already, a test that starts another one starts the machine's.
    own = set() if config.getoption("--containerd-address") else {"containerd_binary"}
    for item in items:
        if isinstance(item, pytest.Function) and {"daemon", *own}.isdisjoint(item.fixturenames):
            item.add_marker("once")


@pytest.fixture(autouse=True)
def _unchanged_logging() -> Iterator[None]:
    """Undo what a command run in this process did to the logger: others look at what it says."""
    logger = logging.getLogger("cas")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in os.environ:
        if name.startswith(("CAS_", "CONTAINERD_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def containerd_binary(pytestconfig: pytest.Config) -> str:
    """The binary to test."""
    return str(pytestconfig.getoption("--containerd"))


@pytest.fixture(scope="session")
def daemon(pytestconfig: pytest.Config, containerd_binary: str) -> Iterator[Daemon]:
    """The session's containerd; not to be stopped. An external one has no ``pid``."""
    address = pytestconfig.getoption("--containerd-address")
    persist = pytestconfig.getoption("--persist")
    with ExitStack() as stack:
        if address is None:
            directory = stack.enter_context(persist_directory())
            settings = settings_for(directory, containerd_binary)
            daemon = stack.enter_context(private_daemon(settings))
        else:
            settings = settings_for(Path(persist).absolute(), containerd_binary)
            daemon = Daemon(replace(settings, address=Path(address).absolute()))
            create_directories(settings, repair=True)
        yield daemon
        _check_nothing_is_left(daemon.settings)


@pytest.fixture
def settings(daemon: Daemon) -> Iterator[Settings]:
    """Settings for the session's containerd in a namespace of the test's own, cleaned after it."""
    settings = replace(daemon.settings, namespace=f"t-{uuid.uuid4().hex[:12]}")
    yield settings
    empty_layout(settings)
    with connect(settings) as containerd:
        empty_namespace(containerd)


@pytest.fixture
def containerd(settings: Settings) -> Iterator[Containerd]:
    """A connection in the test's own namespace."""
    with connect(settings) as containerd:
        yield containerd


@pytest.fixture
def own_settings(containerd_binary: str) -> Iterator[Settings]:
    """Settings of a store that nobody has started yet, with its layout."""
    with persist_directory() as directory:
        settings = settings_for(directory, containerd_binary)
        create_directories(settings, repair=True)
        yield settings


@pytest.fixture
def restartable_daemon(containerd_binary: str) -> Iterator[Daemon]:
    """A running containerd of the test's own, to be killed and started again."""
    with (
        persist_directory() as directory,
        private_daemon(settings_for(directory, containerd_binary)) as daemon,
    ):
        yield daemon


@pytest.fixture
def loop_ext4() -> Iterator[Callable[[int], LoopFileSystem]]:
    """A factory of small mounted ext4 file systems by size in bytes, unmounted after the test."""
    with ExitStack() as stack:

        def make(size: int, *features: str) -> LoopFileSystem:
            directory = stack.enter_context(persist_directory())
            return stack.enter_context(LoopFileSystem(directory, size, features))

        yield make


@pytest.fixture
def software_tpm() -> Iterator[SoftwareTpm]:
    """A running TPM of the test's own."""
    with persist_directory() as directory, SoftwareTpm(directory / "tpm") as tpm:
        yield tpm


@pytest.fixture
def machine(
    loop_ext4: Callable[..., LoopFileSystem], software_tpm: SoftwareTpm, containerd_binary: str
) -> VaultMachine:
    """A device whose disk can be encrypted, with a TPM and nothing on it."""
    return VaultMachine(loop_ext4(64 * 1024 * 1024, "encrypt"), software_tpm, containerd_binary)


def _check_nothing_is_left(settings: Settings) -> None:
    """Fail the session if tests together left what a recovery would have to clean."""
    assert mounts_below(settings.persist) == []
    with connect(settings) as containerd:
        left = [name for name in containerd.namespaces.iter_namespaces() if name.startswith("t-")]
    assert left == []
