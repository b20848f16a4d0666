"""The agents' own processes in a vault whose key is taken from the kernel under them."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest

from cas.downloader.downloader import Downloader
from cas.errors import VaultLockedError
from cas.fsops.encryption_keys import remove_key
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName
from cas.pull.sources import url_settings
from cas.vault.vaults import VaultState
from cas.verifier.verifier import Verifier
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import resource
from tests.support.vaults import VaultMachine

pytestmark = pytest.mark.slow

_DATA = b"a disk of some kind"


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    """A server that has the file."""
    with HostileRegistry() as registry:
        yield registry


def test_agent_that_is_alone_with_a_locked_vault_writes_nothing(
    machine: VaultMachine, registry: HostileRegistry
) -> None:
    """Nobody asks the guard for it; the kernel refuses, in words of ours."""
    machine.settings = replace(machine.settings, owners=Settings(persist=machine.disk.path).owners)
    machine.disk.path.chmod(0o755)
    machine.vaults.init()
    settings = machine.settings
    source, path = url_settings(settings.download, registry.on("/disk.img", resource(_DATA)))
    here, there = (TransferName(UUID(int=number), Digest.of(_DATA)) for number in (1, 2))
    with Downloader(settings, source) as downloader, Verifier(settings) as verifier:
        downloader.fetch(here, path)
        assert verifier.missing() == {}
        policy = machine.status().policy
        assert policy is not None
        assert not remove_key(settings.persist, policy.identifier)
        assert machine.status().state is VaultState.HALF_LOCKED
        before = sorted(machine.vault.rglob("*"))

        with pytest.raises(VaultLockedError):
            downloader.fetch(there, path)
        with pytest.raises(VaultLockedError):
            verifier.verify(here)

        assert sorted(machine.vault.rglob("*")) == before
    machine.vaults.lock()
    machine.vaults.unlock()
    assert settings.layout.download(here).read_bytes() == _DATA
    with Verifier(settings) as verifier:
        assert verifier.verify(here).read_bytes() == _DATA
