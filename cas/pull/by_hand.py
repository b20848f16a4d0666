"""The steps of a pull one at a time, without a store: for people, and for pipelines of others."""

__all__ = ["download_unverified", "verify_downloads"]

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cas.datastores.fetch import held_bytes
from cas.downloader.downloader import Downloader
from cas.downloader.requests import Fetched
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.limits import Limits
from cas.model.progress import Progress
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName
from cas.pull.room import Room
from cas.pull.sources import file_uuid, url_settings
from cas.pull.transfer import RemoteBlob, Watch, told
from cas.store.directories import require_directories
from cas.store.guard import VaultGuard
from cas.store.locking import Locks
from cas.store.space import Space
from cas.verifier.verifier import Verifier


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the file system is, without a store on it."""

    layout: Layout
    limits: Limits
    blobs_directory: Path | None = None


def download_unverified(
    settings: Settings,
    url: str,
    digest: Digest,
    *,
    size: int | None,
    image: UUID | None,
    progress: Progress,
) -> tuple[Path, Fetched]:
    """Bring a file into the downloader's directory, where nobody has verified it.

    Args:
        settings: Layout, accounts, downloads.
        url: Where it is.
        digest: That it claims to have.
        size: Bytes it must have; None if nobody knows.
        image: UUID in its name; None takes one made from the URL.
        progress: Told of every chunk.

    Returns:
        The file, and what came.

    Raises:
        NoSpaceError: There is no room, or none for more; what came is kept.
        CasError: As :meth:`cas.downloader.downloader.Downloader.fetch`.
    """
    layout = settings.layout
    _require_writable(settings, (layout.downloader,))
    source, path = url_settings(settings.download, url)
    name = TransferName(image or file_uuid(url), digest)
    blob = RemoteBlob(digest, size, path)
    room = Room(Space(_Place(layout, settings.limits)))
    held = held_bytes(layout.download(name))
    with (
        Locks(layout).transfer(digest),
        Downloader(settings, source) as downloader,
        room.of(None if size is None else max(0, size - held), f"file {path}"),
        told(Watch(progress, room.use), "download", blob, held) as tell,
    ):
        fetched = downloader.fetch(name, path, size, cancel=room.stop, progress=tell)
        return layout.download(name), fetched


def verify_downloads(settings: Settings, names: Iterable[str]) -> list[Path]:
    """Take files from the downloader's directory over, prove and publish them.

    Args:
        settings: Layout and accounts.
        names: Of the files.

    Returns:
        Where each is now, in order.

    Raises:
        InvalidNameError: A name is not ``<imageUUID>.<sha256>``.
        CasError: As :meth:`cas.verifier.verifier.Verifier.verify`, for the first that fails.
    """
    layout = settings.layout
    parsed = [TransferName.parse(name) for name in names]
    _require_writable(settings, (layout.verifier, layout.pending, layout.verified))
    paths = []
    with Verifier(settings) as verifier:
        for name in parsed:
            with Locks(layout).transfer(name.digest):
                paths.append(verifier.verify(name))
    return paths


def _require_writable(settings: Settings, directories: Collection[Path]) -> None:
    VaultGuard.of(settings).check_writable()
    require_directories(settings, directories)
