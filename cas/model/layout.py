"""Where everything lives; the only module that spells paths of the layout.

Pure: it computes paths and never looks at the disk. Who owns which directory is a table here, a
row per directory that ``cas layout`` creates and checks.
"""

__all__ = ["DEFAULT_PERSIST", "DiskPaths", "Layout", "LayoutDirectory"]

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cas.model.digest import Digest
from cas.model.transfer_name import TransferName
from cas.model.vault_settings import VaultName
from cas.model.volume_name import VolumeName

DEFAULT_PERSIST = Path("/persist")
_DEFAULT_RUN = Path("/run/containerd-user")
_DEFAULT_SERVICE_SOCKET = Path("/run/cas/cas.sock")
_TEMPORARY_PREFIX = "."
_DISK_RECORDS = f"{_TEMPORARY_PREFIX}disks"
_DISK_SNAPSHOTS = ".snapshots"


@dataclass(frozen=True, slots=True)
class LayoutDirectory:
    """One directory that the layout promises.

    Args:
        path: Absolute path.
        owner: Role that owns it: ``root``, ``downloader`` or ``verifier``.
        group: Role of its group: ``root`` or ``volumemgr``.
        mode: Permission bits.
    """

    path: Path
    owner: str
    group: str
    mode: int


@dataclass(frozen=True, slots=True)
class DiskPaths:
    """The files of one disk volume, in one of the two directories of volumes.

    Args:
        directory: The directory.
        name: Of the volume.
        clear: Whether that is the directory of clear volumes.
    """

    directory: Path
    name: VolumeName
    clear: bool

    @property
    def file(self) -> Path:
        """The disk; it exists if and only if the volume does."""
        return self.directory / str(self.name)

    @property
    def record(self) -> Path:
        """What the volume was made from; there before the disk, and absent for adopted disks."""
        return self.directory / _DISK_RECORDS / f"{self.name}.json"

    @property
    def snapshots(self) -> Path:
        """Directory of what belongs to the volume's snapshots; there only while there is any."""
        return self.directory / _DISK_RECORDS / f"{self.name}{_DISK_SNAPSHOTS}"

    @property
    def history(self) -> Path:
        """Which snapshots the volume has, and what is being done to them."""
        return self.snapshots / "history.json"

    def snapshot_copy(self, number: int) -> Path:
        """A state of the disk, if its format cannot hold several itself."""
        return self.snapshots / str(number)

    @property
    def preparing(self) -> Path:
        """Where the disk is written before its one rename; left only by a crash."""
        return self.directory / f"{_TEMPORARY_PREFIX}{self.name}.preparing"

    @property
    def reformatting(self) -> Path:
        """Where an image that was unpacked is converted to; left only by a crash."""
        return self.directory / f"{_TEMPORARY_PREFIX}{self.name}.reformatting"

    @property
    def removing(self) -> Path:
        """What the disk is renamed to before removal; left only by a crash."""
        return self.directory / f"{_TEMPORARY_PREFIX}{self.name}.removing"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one persist directory.

    Args:
        persist: Absolute path of the directory.
    """

    persist: Path

    @property
    def vault(self) -> Path:
        """Encrypted, key sealed under PCRs."""
        return self.persist / "vault"

    @property
    def case(self) -> Path:
        """containerd's root; naming inside is containerd's own."""
        return self.vault / "case"

    @property
    def stage(self) -> Path:
        """Ours inside containerd's root, on the blobs' file system; containerd ignores it."""
        return self.case / "io.lfedge.cas" / "stage"

    @property
    def unpacking(self) -> Path:
        """Where layers are unpacked side by side; on the snapshots' file system, see ``stage``."""
        return self.case / "io.lfedge.cas" / "unpack"

    @property
    def quarantine(self) -> Path:
        """Corrupt blobs that repair set aside, named by digest."""
        return self.case / "io.lfedge.cas" / "quarantine"

    @property
    def reserve(self) -> Path:
        """File that is given up so that removal works on a full disk."""
        return self.case / "io.lfedge.cas" / "reserve"

    def store_marker(self, namespace: str) -> Path:
        """Says that containerd's database once knew this namespace's store."""
        return self.case / "io.lfedge.cas" / f"store-{namespace}.json"

    @property
    def scrub_cursor(self) -> Path:
        """Where a time-boxed ``check --read-data`` goes on."""
        return self.case / "io.lfedge.cas" / "scrub.json"

    @property
    def met_transfers(self) -> Path:
        """What the last recovery met on its way from downloader to store, and left."""
        return self.case / "io.lfedge.cas" / "transfers-met-by-recovery.json"

    @property
    def volume_groups(self) -> Path:
        """Notes of operations on the snapshots of several volumes while they last."""
        return self.case / "io.lfedge.cas" / "volume-groups"

    @property
    def volumes(self) -> Path:
        """Encrypted volumes."""
        return self.vault / "volumes"

    @property
    def upgrade(self) -> Path:
        """What the upgradeconverter has to remember; made by its first run."""
        return self.vault / "upgrade"

    @property
    def upgrade_journal(self) -> Path:
        """What was converted, and what was about to be."""
        return self.upgrade / "journal.jsonl"

    @property
    def upgrade_merges(self) -> Path:
        """What merges of stores have brought and what they left."""
        return self.upgrade / "merges.jsonl"

    @property
    def upgrade_report(self) -> Path:
        """What became of everything that lay in the old places."""
        return self.upgrade / "report.json"

    @property
    def upgrade_lock(self) -> Path:
        """Held by a run of the upgradeconverter."""
        return self.locks / "upgrade"

    @property
    def upgrade_command_lock(self) -> Path:
        """Held by ``cas upgrade run`` to its end; by a service while it takes old content in."""
        return self.locks / "upgrade-command"

    @property
    def held_volumes(self) -> Path:
        """A file per volume whose conversion failed."""
        return self.upgrade / "held"

    @property
    def kept_downloads(self) -> Path:
        """A file per verified download of older software that is not in the store yet."""
        return self.upgrade / "kept"

    @property
    def clear_volumes(self) -> Path:
        """Volumes that ask for clear text."""
        return self.persist / "clear" / "volumes"

    @property
    def downloader(self) -> Path:
        """The downloader's directory."""
        return self.vault / "downloader"

    @property
    def verifier(self) -> Path:
        """The verifier's directory."""
        return self.vault / "verifier"

    def download(self, name: TransferName) -> Path:
        """Where the downloader puts a whole file."""
        return self.downloader / str(name)

    @property
    def pending(self) -> Path:
        """Files that wait for verification or are under it, named as they came."""
        return self.verifier / "pending"

    @property
    def verified(self) -> Path:
        """Files that were verified, named by the hex digits of their digest."""
        return self.verifier / "verified"

    @property
    def unsealed_vault(self) -> Path:
        """Encrypted with a key that does not depend on PCRs."""
        return self.persist / "unsealed-vault"

    def vault_directory(self, name: VaultName) -> Path:
        """The directory that is encrypted under one vault's key."""
        return self.persist / name.value

    @property
    def vault_keys(self) -> Path:
        """What opens the vaults, which therefore lies in none of them."""
        return self.persist / "vault-keys"

    def sealed_key(self, name: VaultName) -> Path:
        """How a vault's key is had; nothing in it is a key in clear."""
        return self.vault_keys / f"{name.value}.json"

    def unlock_record(self, name: VaultName) -> Path:
        """How a vault was opened in this boot."""
        return self.run / f"{name.value}-unlocked.json"

    @property
    def vaults_lock(self) -> Path:
        """Held by whoever makes, opens, locks or reseals a vault."""
        return self.locks / "vaults"

    @property
    def vault_closing(self) -> Path:
        """Held while the vault is being locked: users stop, and new ones are refused."""
        return self.locks / "vault-closing"

    @property
    def run(self) -> Path:
        """containerd's state and socket, and our locks; lost at reboot where it is a tmpfs."""
        return _DEFAULT_RUN if self.persist == DEFAULT_PERSIST else self.persist / "run"

    @property
    def old_store_run(self) -> Path:
        """State and socket of a containerd on an old store, while that is merged."""
        return self.run / "old-store"

    @property
    def containerd_socket(self) -> Path:
        """containerd's gRPC socket."""
        return self.run / "containerd.sock"

    @property
    def service_socket(self) -> Path:
        """The service's gRPC socket."""
        if self.persist == DEFAULT_PERSIST:
            return _DEFAULT_SERVICE_SOCKET
        return self.run / "cas.sock"

    @property
    def service_lock(self) -> Path:
        """Held by the service that works on this directory."""
        return self.run / "serve.lock"

    @property
    def locks(self) -> Path:
        """Lock files; see :mod:`cas.store.locking`."""
        return self.run / "locks"

    @property
    def plain_vault_warned(self) -> Path:
        """Marks that somebody was warned of a vault without encryption."""
        return self.run / "plain-vault-warned"

    @property
    def reservations(self) -> Path:
        """Ledger of space that running work will need."""
        return self.run / "reservations"

    def volume(self, name: VolumeName) -> Path:
        """The directory of a container volume; it exists if and only if the volume does."""
        return self.volumes / str(name)

    def volume_rootfs(self, name: VolumeName) -> Path:
        """Mount point of the volume's snapshot."""
        return self.volume(name) / "rootfs"

    def volume_record(self, name: VolumeName) -> Path:
        """What the volume was made from."""
        return self.volume(name) / "volume.json"

    def volume_preparing(self, name: VolumeName) -> Path:
        """Where the directory is built before its one rename; left only by a crash."""
        return self.volumes / f"{_TEMPORARY_PREFIX}{name}.preparing"

    def volume_removing(self, name: VolumeName) -> Path:
        """What the directory is renamed to before removal; left only by a crash."""
        return self.volumes / f"{_TEMPORARY_PREFIX}{name}.removing"

    @staticmethod
    def converting(volume: Path) -> Path:
        """Where an old volume is copied to before its one rename; left only by a crash."""
        return volume.with_name(f"{_TEMPORARY_PREFIX}{volume.name}.converting")

    def disk(self, name: VolumeName, *, clear: bool) -> DiskPaths:
        """The files of a disk volume, in the vault or in clear."""
        return DiskPaths(self.disk_directory(clear=clear), name, clear)

    def disk_directory(self, *, clear: bool) -> Path:
        """Where disk volumes are, in the vault or in clear."""
        return self.clear_volumes if clear else self.volumes

    def disk_records(self, *, clear: bool) -> Path:
        """Where the records of disk volumes are, in the vault or in clear."""
        return self.disk_directory(clear=clear) / _DISK_RECORDS

    def lock(self, kind: str, key: str) -> Path:
        """The lock file of an object: one of 256 per kind, so that their number is bounded."""
        bucket = hashlib.sha256(key.encode()).hexdigest()[:2]
        return self.locks / f"{kind}-{bucket}"

    def staged(self, digest: Digest) -> Path:
        """Partial file of an interrupted ingest."""
        return self.stage / f"{digest.hex}.partial"

    def directories(self) -> tuple[LayoutDirectory, ...]:
        """Every directory that ``cas layout init`` creates, parents first."""
        return (
            LayoutDirectory(self.vault, "root", "volumemgr", 0o750),
            LayoutDirectory(self.case, "root", "root", 0o700),
            LayoutDirectory(self.volumes, "root", "volumemgr", 0o750),
            # Its files get the directory's group, to which their owner cannot give them.
            LayoutDirectory(self.downloader, "downloader", "volumemgr", 0o2750),
            LayoutDirectory(self.verifier, "verifier", "volumemgr", 0o750),
            LayoutDirectory(self.pending, "verifier", "volumemgr", 0o750),
            LayoutDirectory(self.verified, "verifier", "volumemgr", 0o750),
            LayoutDirectory(self.persist / "clear", "root", "volumemgr", 0o750),
            LayoutDirectory(self.clear_volumes, "root", "volumemgr", 0o750),
            LayoutDirectory(self.unsealed_vault, "root", "root", 0o700),
            LayoutDirectory(self.vault_keys, "root", "root", 0o700),
            LayoutDirectory(self.persist / "checkpoint", "root", "root", 0o700),
        )
