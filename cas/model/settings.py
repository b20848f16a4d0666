"""What an installation chooses; read by the command line, given to the library."""

__all__ = ["DEFAULT_NAMESPACE", "DEFAULT_SNAPSHOTTER", "ServiceUse", "Settings"]

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cas.model.download_settings import DownloadSettings
from cas.model.layout import DEFAULT_PERSIST, Layout
from cas.model.limits import Limits
from cas.model.vault_settings import VaultSettings

DEFAULT_NAMESPACE = "eve-user-apps"
DEFAULT_SNAPSHOTTER = "overlayfs"


class ServiceUse(StrEnum):
    """Whether the ``cas`` command goes through the service or opens the store itself."""

    AUTO = "auto"
    """Through the service where one answers for the same store."""
    NEVER = "never"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that may differ between two installations.

    Args:
        persist: The persist directory, absolute.
        address: containerd's socket; None means the layout's own.
        namespace: containerd namespace.
        snapshotter: containerd snapshotter plugin.
        containerd_binary: Name on PATH or absolute path of containerd.
        qemu_img_binary: Name, or absolute path, of qemu-img.
        workers: Blobs, and layers of an image, worked on at once.
        wait_seconds: How long to wait for containerd to answer at first.
        service: Whether commands go through the service.
        service_address: The service's socket; None means the layout's own.
        allowed_directories: Where files may lie that callers of the service name, besides the
            verifier's directory; absolute.
        metrics_address: Where the service tells its metrics, as HOST:PORT or an absolute path; None
            for nowhere.
        stop_seconds: How long a service that is to stop lets running calls go on.
        require_encryption: Refuse to write into a plain vault.
        vault: How vaults are made.
        require_confinement: Refuse to start an agent that cannot be confined in every way.
        download: How content is downloaded.
        owners: Role (``root``, ``downloader``, ``verifier``, ``volumemgr``) to user or group name.
        limits: Limits against hostile input.
    """

    persist: Path = DEFAULT_PERSIST
    address: Path | None = None
    namespace: str = DEFAULT_NAMESPACE
    snapshotter: str = DEFAULT_SNAPSHOTTER
    containerd_binary: str = "containerd"
    qemu_img_binary: str = "qemu-img"
    workers: int = 4
    wait_seconds: float = 10.0
    service: ServiceUse = ServiceUse.AUTO
    service_address: Path | None = None
    allowed_directories: tuple[Path, ...] = ()
    metrics_address: str | None = None
    stop_seconds: float = 20.0
    require_encryption: bool = False
    vault: VaultSettings = field(default_factory=VaultSettings)
    require_confinement: bool = False
    download: DownloadSettings = field(default_factory=DownloadSettings)
    owners: dict[str, str] = field(
        default_factory=lambda: {
            "root": "root",
            "downloader": "cas-downloader",
            "verifier": "cas-verifier",
            "volumemgr": "volumemgr",
        }
    )
    limits: Limits = field(default_factory=Limits)

    @property
    def layout(self) -> Layout:
        """The paths below ``persist``."""
        return Layout(self.persist)

    @property
    def socket(self) -> Path:
        """The containerd socket to use."""
        return self.address or self.layout.containerd_socket

    @property
    def service_socket(self) -> Path:
        """The socket of the service."""
        return self.service_address or self.layout.service_socket
