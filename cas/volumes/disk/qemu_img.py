"""qemu-img, for what it alone can do: formats with tables of their own.

It works on open files and is told their format, so that nothing in a file decides what is opened
or how; and it runs confined, since what it reads comes from outside.
"""

__all__ = ["OpenFile", "QemuImg"]

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

from cas.agent.account import Account
from cas.errors import DiskImageError, QemuImgError, QemuImgMissingError
from cas.model.cancellation import Cancellation
from cas.model.disk.format import DiskFormat
from cas.volumes.disk.program import ConfinedProgram, ProgramLimits

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_MEMORY_BYTES = 2 * _GIB
_LOOK = ProgramLimits(
    silence_seconds=30.0, memory_bytes=_MEMORY_BYTES, cpu_seconds=30, file_bytes=0
)
_LEAKS = 3
"""What ``qemu-img check`` ends with if some clusters are merely unused."""
_TABLES_BYTES = 64 * _MIB
"""Room of a format for its own tables, beside a hundredth of the disk."""
_CONVERT_PATIENCE = 5
_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")


class OpenFile(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


class _Tag(msgspec.Struct):
    name: str


class _Info(msgspec.Struct, rename="kebab"):
    format: str
    virtual_size: int
    backing_filename: str | None = None
    full_backing_filename: str | None = None
    encrypted: bool = False
    snapshots: list[_Tag] = []


class QemuImg:
    """Runs qemu-img; may be shared by threads.

    Args:
        binary: Name or absolute path.
        account: Gives who it runs as; asked at each run.
        require_confinement: Refuse to run it where a part of the confinement is missing.
        silence_seconds: How long it may say nothing while it changes a file; five times that while
            it converts one.
    """

    def __init__(
        self,
        binary: str,
        *,
        account: Callable[[], Account],
        require_confinement: bool = False,
        silence_seconds: float = 120.0,
    ) -> None:
        self._binary = binary
        self._account = account
        self._require_confinement = require_confinement
        self._silence_seconds = silence_seconds

    @property
    def account(self) -> Account:
        """Who it runs as, and who must be able to open the files.

        Raises:
            LayoutError: There is no such account.
        """
        return self._account()

    def virtual_size(
        self, file: OpenFile, disk_format: DiskFormat, *, cancel: Cancellation | None = None
    ) -> int:
        """Let qemu read an image's tables; gives the bytes of the disk in it.

        Raises:
            DiskImageError: It cannot be opened as that format, or refers to other files.
            QemuImgMissingError: There is no qemu-img.
            DeadlineExceededError: It hangs.
        """
        found = self._info(file, disk_format, cancel=cancel)
        if found.backing_filename or found.full_backing_filename or found.encrypted:
            raise DiskImageError("the image refers to a backing file or is encrypted")
        return found.virtual_size

    def tags(self, file: OpenFile, disk_format: DiskFormat) -> set[str]:
        """Give the names of the snapshots inside an image; raises as :meth:`virtual_size`."""
        return {each.name for each in self._info(file, disk_format).snapshots}

    def require(self) -> None:
        """Return if there is one to run.

        Raises:
            QemuImgMissingError: There is no qemu-img.
            LayoutError: There is no account for it.
        """
        self._program()

    def _info(
        self, file: OpenFile, disk_format: DiskFormat, *, cancel: Cancellation | None = None
    ) -> _Info:
        target = _opened(file, disk_format, writing=False)
        arguments = ["info", "--output=json", "--force-share", "--image-opts", target]
        try:
            raw = self._program().run(arguments, files=[file.fileno()], limits=_LOOK, cancel=cancel)
            return msgspec.json.decode(raw, type=_Info)
        except (QemuImgError, msgspec.MsgspecError) as error:
            raise DiskImageError(
                f"qemu cannot read the image as {disk_format}: {error}; it is damaged or forged"
            ) from error

    def check(
        self, file: OpenFile, disk_format: DiskFormat, *, cancel: Cancellation | None = None
    ) -> None:
        """Let qemu follow an image's tables to their ends; clusters that nobody uses are no harm.

        Without it, what a cut-off image lacks would read as zeros.

        Raises:
            DiskImageError: They lead beyond the end of the file, or contradict each other.
            QemuImgMissingError: There is no qemu-img.
            DeadlineExceededError: It hangs.
        """
        target = _opened(file, disk_format, writing=False)
        arguments = ["check", "-q", "--force-share", "--image-opts", target]
        limits = replace(_LOOK, silence_seconds=self._silence_seconds, cpu_seconds=0)
        try:
            self._program().run(arguments, files=[file.fileno()], limits=limits, cancel=cancel)
        except QemuImgError as error:
            if error.details.get("status") != _LEAKS:
                raise DiskImageError(
                    f"the image's tables do not lead to its data: {error}; it is cut off, damaged "
                    "or forged"
                ) from error

    def create(self, file: OpenFile, disk_format: DiskFormat, size: int) -> None:
        """Make an open file a blank disk of ``size`` bytes.

        Raises:
            QemuImgError: It failed, for example as there is no room.
            QemuImgMissingError: There is no qemu-img.
            DeadlineExceededError: It hangs.
        """
        path = f"/proc/self/fd/{file.fileno()}"
        arguments = ["create", "-q", "-f", disk_format.driver, path, str(size)]
        self._change(arguments, [file], size)

    def resize(self, file: OpenFile, disk_format: DiskFormat, size: int) -> None:
        """Let the disk in an open file grow to ``size`` bytes; raises as :meth:`create`."""
        target = _opened(file, disk_format, writing=True)
        self._change(["resize", "-q", "--image-opts", target, str(size)], [file], size)

    def take_snapshot(self, file: OpenFile, disk_format: DiskFormat, tag: str, size: int) -> None:
        """Let an image keep the present state of its disk; raises as :meth:`create`.

        Args:
            file: Open for writing.
            disk_format: One that can, which is qcow2.
            tag: How the state is called.
            size: Bytes that the file may come to have at most.
        """
        self._snapshot("-c", file, disk_format, tag, size)

    def return_to_snapshot(
        self, file: OpenFile, disk_format: DiskFormat, tag: str, size: int
    ) -> None:
        """Make the disk what it was; as :meth:`take_snapshot`. What it is now is lost."""
        self._snapshot("-a", file, disk_format, tag, size)

    def drop_snapshot(self, file: OpenFile, disk_format: DiskFormat, tag: str, size: int) -> None:
        """Let an image forget a state, and the file system have its room; as above."""
        self._snapshot("-d", file, disk_format, tag, size)

    def _snapshot(
        self, action: str, file: OpenFile, disk_format: DiskFormat, tag: str, size: int
    ) -> None:
        target = _opened(file, disk_format, writing=True)
        self._change(["snapshot", "-q", "--image-opts", action, tag, target], [file], size)

    def free_leaks(self, file: OpenFile, disk_format: DiskFormat, size: int) -> None:
        """Free clusters that nobody uses, as a killed qemu-img leaves them.

        Raises:
            DiskImageError: The image is damaged beyond that.
            QemuImgMissingError: There is no qemu-img.
            DeadlineExceededError: It hangs.
        """
        target = _opened(file, disk_format, writing=True)
        try:
            self._change(["check", "-q", "-r", "leaks", "--image-opts", target], [file], size)
        except QemuImgError as error:
            raise DiskImageError(f"the image's tables contradict each other: {error}") from error

    def convert(
        self,
        source: OpenFile,
        target: OpenFile,
        *,
        formats: tuple[DiskFormat, DiskFormat],
        size: int,
        cancel: Cancellation,
        percent: Callable[[float], None],
    ) -> None:
        """Write the disk of one open file into another one.

        Args:
            source: The image.
            target: An empty file.
            formats: Of the image, and that the other one gets.
            size: Bytes of the disk.
            cancel: Ends it.
            percent: Told how far it is.

        Raises:
            QemuImgError: It failed, for example as there is no room.
            QemuImgMissingError: There is no qemu-img.
            DeadlineExceededError: It hangs.
            InterruptedOperationError: ``cancel`` was set.
        """
        before, after = formats

        def listen(chunk: bytes) -> None:
            for done in _PERCENT.findall(chunk):
                percent(float(done))

        self._change(
            [
                *("convert", "-p", "-O", after.driver, "--image-opts"),
                _opened(source, before, writing=False),
                f"/proc/self/fd/{target.fileno()}",
            ],
            [source, target],
            size,
            patience=_CONVERT_PATIENCE,
            cancel=cancel,
            listen=listen,
        )

    def _change(
        self,
        arguments: Sequence[str],
        files: Sequence[OpenFile],
        size: int,
        *,
        patience: int = 1,
        cancel: Cancellation | None = None,
        listen: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        limits = ProgramLimits(
            silence_seconds=self._silence_seconds * patience,
            memory_bytes=_MEMORY_BYTES,
            cpu_seconds=0,
            file_bytes=size + size // 100 + _TABLES_BYTES,
        )
        self._program().run(
            arguments,
            files=[file.fileno() for file in files],
            limits=limits,
            cancel=cancel,
            listen=listen,
        )

    def _program(self) -> ConfinedProgram:
        path = shutil.which(self._binary)
        if path is None:
            raise QemuImgMissingError(
                f"there is no {self._binary!r} to work on disk images with; install qemu-utils, "
                "or set qemu_img_binary",
                program=self._binary,
            )
        return ConfinedProgram(path, self.account, self._require_confinement)


def _opened(file: OpenFile, disk_format: DiskFormat, *, writing: bool) -> str:
    """Name an open file to qemu with its format, none of which is then guessed."""
    mode = "" if writing else ",read-only=on"
    path = f"/proc/self/fd/{file.fileno()}"
    return f"driver={disk_format.driver},file.driver=file,file.filename={path}{mode}"
