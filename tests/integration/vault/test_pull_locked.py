"""A pull that is under way when the vault is locked: it ends, its agents with it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.model.settings import ServiceUse, Settings
from cas.rpc.client.vault import VaultClient
from cas.vault.vaults import VaultState
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import Line, resource
from tests.support.images import layered_image
from tests.support.loopfs import LoopFileSystem
from tests.support.process_states import runs
from tests.support.pull_worker import agents_of
from tests.support.service import Service
from tests.support.stores import names
from tests.support.swtpm import SoftwareTpm
from tests.support.vaults import VaultMachine
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow

_ROOT = Path(__file__).parents[3]
_DISK_BYTES = 512 * 1024 * 1024


@pytest.fixture
def device(
    loop_ext4: Callable[..., LoopFileSystem], software_tpm: SoftwareTpm, containerd_binary: str
) -> VaultMachine:
    """A device whose agents have accounts of their own, as :func:`waiting` starts it."""
    device = VaultMachine(loop_ext4(_DISK_BYTES, "encrypt"), software_tpm, containerd_binary)
    owners = Settings(persist=device.disk.path).owners
    device.settings = replace(device.settings, owners=owners)
    device.disk.path.chmod(0o755)
    device.vaults.init()
    return device


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    """A registry that does what it is told."""
    with HostileRegistry() as registry:
        yield registry


@pytest.mark.parametrize("use", [ServiceUse.ALWAYS, ServiceUse.NEVER])
def test_pull_ends_with_its_agents_when_the_vault_is_locked(
    device: VaultMachine,
    waiting: Service,
    vaults: VaultClient,
    registry: HostileRegistry,
    use: ServiceUse,
) -> None:
    """Whether the service pulls or a command; nothing is left, and after unlock all goes on."""
    image = layered_image()
    reference = registry.publish(image)
    layer = image.layers[0].digest
    data = image.blobs[layer]
    path = registry.behave(layer, resource(data, etag=None, cut_after=100, then=Line.hold))
    vaults.unlock()
    waiting.notify.wait_for("READY=1")
    command: list[str | Path] = [
        sys.executable, "-m", "cas", "--json", "--config", waiting.config,
        "--service", use.value, "image", "pull", reference,
    ]  # fmt: skip

    with subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE, text=True) as pull:
        puller = waiting.process.pid if use is ServiceUse.ALWAYS else pull.pid
        wait_for(lambda: registry.asked(path))
        wait_for(lambda: len(agents_of(puller)) == 2)
        agents = agents_of(puller)

        vaults.lock()

        assert device.status().state is VaultState.LOCKED
        assert not any(map(runs, agents.values()))
        _, said = pull.communicate()
    told = json.loads(said.splitlines()[-1])["error"]
    assert (pull.returncode, told["reference"]) == (7, "vault-locked")
    assert names(device.settings.layout.reservations) == []
    sealed = sorted(device.vault.rglob("*"))
    assert not any(part in str(path) for path in sealed for part in ("case", "downloader"))

    vaults.unlock()
    waiting.wait_for_health("SERVING")
    registry.behave(layer, resource(data, etag=None))
    # Health may still be told as it was before the lock: a failure that passes is tried again.
    wait_for(lambda: subprocess.run(command, cwd=_ROOT, check=False).returncode == 0)
    layout = device.settings.layout
    assert [names(place) for place in (layout.downloader, layout.pending, layout.verified)] == [
        [],
        [],
        [],
    ]
    vaults.lock()
