"""The steps of a pull one at a time, without a store: for people, and for pipelines of others."""

__all__ = ["download_unverified", "verify_downloads"]

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from cas.downloader.downloader import Downloader
from cas.downloader.requests import Fetched
from cas.model.digest import Digest
from cas.model.progress import Progress
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName
from cas.pull.sources import file_uuid, url_settings
from cas.pull.transfer import RemoteBlob, Watch, told
from cas.store.directories import require_directories
from cas.store.locking import Locks
from cas.verifier.verifier import Verifier


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
        CasError: As :meth:`cas.downloader.downloader.Downloader.fetch`.
    """
    layout = settings.layout
    require_directories(settings, (layout.downloader,))
    source, path = url_settings(settings.download, url)
    name = TransferName(image or file_uuid(url), digest)
    blob = RemoteBlob(digest, size, path)
    with (
        Locks(layout).transfer(digest),
        Downloader(settings, source) as downloader,
        told(Watch(progress), "download", blob) as tell,
    ):
        return layout.download(name), downloader.fetch(name, path, size, progress=tell)


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
    require_directories(settings, (layout.verifier, layout.pending, layout.verified))
    paths = []
    with Verifier(settings) as verifier:
        for name in parsed:
            with Locks(layout).transfer(name.digest):
                paths.append(verifier.verify(name))
    return paths
