"""Three ways to mount an overlay of up to 500 layers; used by :mod:`cas.fsops.mounts`.

``mount(2)`` takes one page of options, which some forty layers fill, and cuts what is longer
without a word. Longer lists go layer by layer through the kernel's newer interface, and where
that is missing, as paths relative to the layers' common directory.

All three give the same file system. Everything here raises ``OSError``, apart from what it
refuses by itself; the caller translates.
"""

__all__ = [
    "MAX_LAYERS",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_RDONLY",
    "Overlay",
    "mount_by_data",
    "mount_by_layer",
    "mount_overlay",
    "mount_relative",
]

import errno
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cas.errors import LimitExceededError, StorageError
from cas.fsops import kernel

_log = logging.getLogger(__name__)

MAX_LAYERS = 500
"""Lower directories that the kernel's overlay takes."""

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
_ATTRIBUTES = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
"""Flags that have the same numbers in both interfaces; no others are accepted."""

_LOWER = "lowerdir="
_UPPER = "upperdir="
_WORK = "workdir="
_NO_LAYER_INTERFACE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ENODEV})
"""What kernels, or filters of system calls, answer that do not know the newer interface."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """One overlay mount.

    Args:
        lower: Read-only directories, topmost first, absolute.
        upper: Where writing goes; None for a read-only overlay.
        work: The kernel's scratch directory beside ``upper``.
        others: Options passed on as they are.
        flags: ``MS_`` flags of the mount.
    """

    lower: tuple[str, ...]
    upper: str | None
    work: str | None
    others: tuple[str, ...]
    flags: int

    @classmethod
    def parse(cls, options: Sequence[str], flags: int) -> "Overlay":
        """Read the options as the snapshotter gives them: unescaped, in any order.

        Raises:
            StorageError: No layer is named.
            LimitExceededError: More layers than the kernel takes.
        """
        lower = _split_layers(_value(options, _LOWER) or "")
        if not lower:
            message = f"an overlay without {_LOWER} cannot be mounted"
            raise StorageError(message, options=",".join(options))
        if len(lower) > MAX_LAYERS:
            message = f"an overlay of {len(lower)} layers cannot be mounted: at most {MAX_LAYERS}"
            raise LimitExceededError(message, expected=MAX_LAYERS, actual=len(lower))
        others = [o for o in options if not o.startswith((_LOWER, _UPPER, _WORK))]
        return cls(
            lower=lower,
            upper=_value(options, _UPPER),
            work=_value(options, _WORK),
            others=tuple(others),
            flags=flags,
        )

    def directories(self) -> tuple[str, ...]:
        """Every directory it is made of."""
        return self.lower + tuple(path for path in (self.upper, self.work) if path is not None)

    def data(self, base: str | None = None) -> str:
        """Options for ``mount(2)``, escaped; layers relative to ``base`` if it is given.

        Upper and work directory stay absolute, so that the mount table always shows whose they
        are.
        """
        layers = [os.path.relpath(path, base) if base else path for path in self.lower]
        parts = [_LOWER + ":".join(_escaped(layer) for layer in layers)]
        if self.upper is not None and self.work is not None:
            parts += [_UPPER + _escaped(self.upper), _WORK + _escaped(self.work)]
        return ",".join([*parts, *self.others])


def _value(options: Sequence[str], prefix: str) -> str | None:
    return next((o.removeprefix(prefix) for o in options if o.startswith(prefix)), None)


def _split_layers(value: str) -> tuple[str, ...]:
    # The list is not escaped, so only a colon before an absolute path separates.
    first, *rest = value.split(":/")
    return tuple(path for path in (first, *(f"/{layer}" for layer in rest)) if path)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def mount_overlay(overlay: Overlay, target: Path) -> None:
    """Mount in the first way that this kernel and this list of layers allow."""
    if _fits(overlay.data()):
        mount_by_data(overlay, target)
        return
    if not any("\\" in path for path in overlay.directories()):  # the kernel unescapes some
        try:
            mount_by_layer(overlay, target)
        except OSError as error:
            if error.errno not in _NO_LAYER_INTERFACE:
                raise
            _log.debug("overlay is mounted by relative paths target=%s cause=%s", target, error)
        else:
            return
    mount_relative(overlay, target)


def _fits(data: str) -> bool:
    return len(os.fsencode(data)) < os.sysconf("SC_PAGE_SIZE")


def mount_by_data(overlay: Overlay, target: Path, base: str | None = None) -> None:
    """Mount by ``mount(2)``; the data must fit a page."""
    data = overlay.data(base)
    if not _fits(data):
        message = f"{len(overlay.lower)} layers need {len(data)} bytes of options"
        raise OSError(errno.E2BIG, message)
    kernel.mount("overlay", target, "overlay", overlay.flags, data)


def mount_relative(overlay: Overlay, target: Path) -> None:
    """Mount by ``mount(2)`` from within the layers' common directory.

    The working directory belongs to the process, so a thread gets one of its own for this and
    ends with it.
    """
    base = os.path.commonpath([os.path.dirname(path) for path in overlay.lower])

    def mount_from_base() -> None:
        kernel.unshare_working_directory()
        os.chdir(base)
        mount_by_data(overlay, target, base)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="overlay") as thread:
        thread.submit(mount_from_base).result()


def mount_by_layer(overlay: Overlay, target: Path) -> None:
    """Mount by ``fsopen``, one call per layer; paths are said as they are, without escapes."""
    context = kernel.fsopen("overlay")
    try:
        _configure(context, overlay)
        kernel.fsconfig_create(context)
        detached = kernel.fsmount(context, overlay.flags & _ATTRIBUTES)
    finally:
        os.close(context)
    try:
        kernel.move_mount(detached, target)
    finally:
        os.close(detached)


def _configure(context: int, overlay: Overlay) -> None:
    kernel.fsconfig_string(context, "source", "overlay")
    for layer in overlay.lower:
        kernel.fsconfig_string(context, "lowerdir+", layer)
    if overlay.upper is not None and overlay.work is not None:
        kernel.fsconfig_string(context, "upperdir", overlay.upper)
        kernel.fsconfig_string(context, "workdir", overlay.work)
    for option in overlay.others:
        key, separator, value = option.partition("=")
        if separator:
            kernel.fsconfig_string(context, key, value)
        else:
            kernel.fsconfig_flag(context, key)
    if overlay.flags & MS_RDONLY:
        kernel.fsconfig_flag(context, "ro")
