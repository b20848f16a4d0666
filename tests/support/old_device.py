"""A persist directory as the old software leaves it, built by the test that needs it."""

__all__ = ["OldApp", "OldDevice", "clear_settings", "mounted_tmpfs", "mounted_vault"]

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from cas._gen.eve.auth.auth_pb2 import AuthContainer
from cas._gen.eve.config import devconfig_pb2 as eve
from cas.app import open_upgrade
from cas.model.settings import Settings
from cas.upgrade.items import Outcome, Planned
from cas.upgrade.plan import PlanOptions
from tests.support.daemon import settings_for


def clear_settings(persist: Path) -> Settings:
    """Settings that leave no room free, so that small file systems do."""
    settings = settings_for(persist, "containerd")
    return replace(settings, limits=replace(settings.limits, min_free_bytes=0))


def _uuid(seed: str) -> UUID:
    return UUID(bytes=hashlib.md5(seed.encode()).digest(), version=4)


@dataclass
class OldApp:
    """An app of the configuration.

    Args:
        name: Everything about it is derived from it.
        purge: Its counter.
        drives: A word per drive, from which its image is derived; None for one without an image.
    """

    name: str
    purge: int = 0
    drives: Sequence[str | None] = ("image",)

    @property
    def app(self) -> UUID:
        return _uuid(self.name)

    def digest(self, drive: int = 0) -> str:
        return hashlib.sha256(str(self.drives[drive]).encode()).hexdigest()

    def image(self, drive: int = 0) -> UUID:
        return _uuid(f"{self.name}/image/{self.drives[drive]}")

    def volume(self, drive: int = 0) -> UUID:
        return _uuid(f"{self.name}/volume/{drive}")

    def old_name(self, drive: int = 0, *, purge: int | None = None) -> str:
        if purge is None:
            purge = self.purge if drive == 0 else 0
        return f"{self.digest(drive)}-{self.app}" + (f"#{purge}" if purge else "")


@dataclass
class OldDevice:
    """The device.

    Args:
        persist: Its directory.
    """

    persist: Path
    response: eve.ConfigResponse = field(default_factory=eve.ConfigResponse)

    def __post_init__(self) -> None:
        self.response.config.id.uuid = str(_uuid("device"))
        for name in ("img", "runx/pods/prepared", "checkpoint"):
            (self.persist / name).mkdir(parents=True, exist_ok=True)

    @property
    def settings(self) -> Settings:
        return clear_settings(self.persist)

    def add(self, app: OldApp, *, clear: bool = False, generation: int = 0) -> OldApp:
        """Put an app with its volumes into the configuration."""
        config = self.response.config
        added = config.apps.add()
        added.uuidandversion.uuid = str(app.app)
        added.purge.counter = app.purge
        for index, drive in enumerate(app.drives):
            entry = added.drives.add()
            if drive is not None:
                entry.image.uuidandversion.uuid = str(app.image(index))
                entry.image.sha256 = app.digest(index)
            volume = config.volumes.add(uuid=str(app.volume(index)), clear_text=clear)
            added.volumeRefList.add(uuid=volume.uuid, generationCount=generation)
        return app

    def write_checkpoint(self, name: str = "config", *, contained: bool = False) -> Path:
        """Store the configuration."""
        data = self.response.SerializeToString()
        if contained:
            container = AuthContainer(senderCertHash=b"hash")
            container.protectedPayload.payload = data
            data = container.SerializeToString()
        path = self.persist / "checkpoint" / name
        path.write_bytes(data)
        return path

    def disk(self, name: str, content: bytes = b"data") -> Path:
        """Put a file into img."""
        path = self.persist / "img" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def container(self, name: str) -> Path:
        """Put a prepared container into its place."""
        path = self.persist / "runx" / "pods" / "prepared" / name
        (path / "rootfs").mkdir(parents=True)
        (path / "image-config.json").write_text("{}")
        return path

    def latch(self, app: OldApp, drive: int = 0, *, suffix: str = "") -> Path:
        """Note a drive's digest, and take it from the configuration."""
        directory = self.persist / "status/zedmanager/AppAndImageToHash"
        directory.mkdir(parents=True, exist_ok=True)
        purge = app.purge if drive == 0 else 0
        counter = f".{purge}" if purge else ""
        path = directory / f"{app.app}.{app.image(drive)}{counter}.json{suffix}"
        entry = {"AppUUID": str(app.app), "ImageID": str(app.image(drive))}
        path.write_text(
            json.dumps({**entry, "Hash": app.digest(drive).upper(), "PurgeCounter": purge})
        )
        for each in self.response.config.apps:
            if each.uuidandversion.uuid == str(app.app):
                each.drives[drive].image.sha256 = ""
        return path

    def plan(self, **options: bool) -> list[Planned]:
        """Plan an upgrade."""
        return list(open_upgrade(self.settings).plan(PlanOptions(**options)))

    def run(self, **options: bool) -> list[Outcome]:
        """Run one."""
        return list(open_upgrade(self.settings).run(PlanOptions(**options)))

    def new(self, app: OldApp, drive: int = 0, *, clear: bool = False, generation: int = 0) -> Path:
        """Where a drive's volume belongs."""
        layout = self.settings.layout
        directory = layout.clear_volumes if clear else layout.volumes
        return directory / f"{app.volume(drive)}#{generation}"

    def entries(self) -> set[str]:
        """Everything that is in old and new places, but directories and what is ours."""
        found = set()
        for directory, _, files in os.walk(self.persist):
            for name in files:
                path = str((Path(directory) / name).relative_to(self.persist))
                if not path.startswith(("vault/upgrade", "run", "checkpoint", "status")):
                    found.add(path)
        return found


@contextmanager
def mounted_vault(persist: Path, elsewhere: Path, *, again: bool = False) -> Iterator[None]:
    """Let the vault lie on another file system; ``again`` takes the one that is there."""
    source = elsewhere / "vault"
    source.mkdir(exist_ok=again)
    (persist / "vault").mkdir(exist_ok=again)
    subprocess.run(["mount", "--bind", source, persist / "vault"], check=True)
    try:
        yield
    finally:
        if os.path.ismount(persist / "vault"):  # a service's test has unmounted all below
            subprocess.run(["umount", persist / "vault"], check=True)


@contextmanager
def mounted_tmpfs(path: Path) -> Iterator[None]:
    """Mount an empty file system in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)
