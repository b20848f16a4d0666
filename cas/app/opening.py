"""What opens without a store: vaults, disks outside them, the upgradeconverter, qemu-img."""

__all__ = ["open_clear_disks", "open_upgrade", "open_vaults", "qemu_img"]

import os
from typing import TYPE_CHECKING

from cas.app.process import require_root, utc_now
from cas.model.settings import Settings
from cas.store.backing import Clock
from cas.store.directories import require_directories
from cas.store.guard import VaultGuard

if TYPE_CHECKING:
    from cas.upgrade.upgrade import Upgrade
    from cas.vault.passphrase import AskPassphrase
    from cas.vault.vaults import Vaults
    from cas.volumes.disk.clear import ClearDisks
    from cas.volumes.disk.qemu_img import QemuImg


def open_vaults(settings: Settings, *, ask: "AskPassphrase", clock: Clock = utc_now) -> "Vaults":
    """Give the use cases on the encrypted directories; touches nothing yet.

    Args:
        settings: Persist directory, and who keeps keys.
        ask: Gives a passphrase, where a vault has one.
        clock: Gives the current time, aware.

    Raises:
        DeniedError: The process is not root.
    """
    from cas.vault.vaults import Vaults

    require_root()
    # The library for TPMs would print what becomes an error of ours anyway.
    os.environ.setdefault("TSS2_LOG", "all+NONE")
    return Vaults(settings, clock=clock, ask=ask)


def open_clear_disks(settings: Settings) -> "ClearDisks":
    """Give the disks outside the vault, which wait neither for that nor for containerd.

    Raises:
        DeniedError: The process is not root.
        LayoutError: Their directory is not as the layout wants it.
    """
    from cas.volumes.disk.clear import ClearDisks

    require_root()
    layout = settings.layout
    require_directories(settings, (layout.clear_volumes.parent, layout.clear_volumes))
    return ClearDisks(
        layout, settings.limits, VaultGuard.of(settings).check_open, qemu_img(settings)
    )


def open_upgrade(settings: Settings, *, clock: Clock = utc_now) -> "Upgrade":
    """Give the upgradeconverter; touches nothing yet and needs no containerd.

    Args:
        settings: Where and how.
        clock: Gives the current time, aware.

    Raises:
        DeniedError: The process is not root.
    """
    from cas.upgrade.upgrade import Upgrade

    require_root()
    return Upgrade(settings, clock)


def qemu_img(settings: Settings) -> "QemuImg":
    """Give qemu-img as the settings want it run: as the user who looks at what came from outside.

    Nothing is looked for before it is needed.
    """
    from cas.agent.account import find_account
    from cas.volumes.disk.qemu_img import QemuImg

    return QemuImg(
        settings.qemu_img_binary,
        account=lambda: find_account(settings.owners["verifier"]),
        require_confinement=settings.require_confinement,
    )
