"""A store whose agents run as the accounts of a device, and registries to pull from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from cas.app import Case
from cas.containerd.daemon import Daemon
from cas.model.download_settings import DownloadSettings
from cas.model.settings import Settings
from cas.store.directories import create_directories
from tests.support.daemon import (
    WAIT_SECONDS,
    connect,
    empty_layout,
    empty_namespace,
    persist_directory,
    private_daemon,
)
from tests.support.hostile_registry import HostileRegistry
from tests.support.stores import names


@pytest.fixture(scope="session")
def device(containerd_binary: str) -> Iterator[Daemon]:
    """A containerd below directories that belong to the real accounts."""
    with persist_directory() as persist:
        settings = Settings(
            persist=persist, containerd_binary=containerd_binary, wait_seconds=WAIT_SECONDS
        )
        create_directories(settings)
        with private_daemon(settings) as daemon:
            yield daemon


@pytest.fixture
def pull_settings(device: Daemon, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a namespace of the test's own; agents that cannot be confined are refused."""
    settings = replace(
        device.settings,
        namespace=f"t-{uuid4().hex[:12]}",
        require_confinement=True,
        download=DownloadSettings(hosts_directory=tmp_path / "hosts", attempts=2),
    )
    yield settings
    empty_layout(settings)
    settings.layout.met_transfers.unlink(missing_ok=True)
    for directory in transfer_directories(settings):
        for path in directory.iterdir():
            path.unlink()
    with connect(settings) as containerd:
        empty_namespace(containerd)


@pytest.fixture
def case(pull_settings: Settings) -> Iterator[Case]:
    """The store, opened."""
    with Case.open(pull_settings) as case:
        yield case


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    """A registry that does what it is told."""
    with HostileRegistry() as registry:
        yield registry


def transfer_directories(settings: Settings) -> tuple[Path, ...]:
    """Where files are on their way into the store."""
    layout = settings.layout
    return (layout.downloader, layout.pending, layout.verified)


@dataclass(frozen=True)
class Left:
    """What an operation left behind."""

    files: list[str]
    leases: int
    reservations: list[str]


def left_by(case: Case) -> Left:
    """Look for what ought to be gone."""
    settings = case.settings
    return Left(
        [name for directory in transfer_directories(settings) for name in names(directory)],
        len(list(case.backing.leases.iter_leases())),
        names(settings.layout.reservations),
    )


NOTHING = Left([], 0, [])
