"""Wiring: settings in, use cases out. The Python library's front door.

Everything that is shared between use cases (connection, clock, identity of this process) is made
here once and handed down; nothing below reads the environment, the clock or the arguments. Use
cases are imported when they are first asked for: a command pays for what it uses.
"""

__all__ = [
    "Case",
    "open_clear_disks",
    "open_upgrade",
    "open_vaults",
    "qemu_img",
    "require_root",
    "utc_now",
]

from cas.app.case import Case
from cas.app.opening import open_clear_disks, open_upgrade, open_vaults, qemu_img
from cas.app.process import require_root, utc_now
