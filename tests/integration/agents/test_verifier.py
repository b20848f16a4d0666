"""From the downloader's directory to a verified file, every step distrusted."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cas.agent.account import find_account, find_group
from cas.errors import (
    DigestMismatchError,
    IntegrityError,
    InterruptedOperationError,
    SizeMismatchError,
    SourceNotFoundError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.layout import Layout
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName
from cas.verifier.handover import HandOver
from cas.verifier.verification import verify_pending
from cas.verifier.verifier import Verifier
from tests.support.killing import kill_at
from tests.support.stores import names, random_bytes
from tests.support.waiting import wait_for

DATA = random_bytes(3_000_000)


@pytest.fixture(scope="module")
def verifier(agent_settings: Settings) -> Iterator[Verifier]:
    with Verifier(agent_settings) as verifier:
        yield verifier


@pytest.fixture
def layout(agent_settings: Settings) -> Iterator[Layout]:
    """The directories, which have to be empty again after the test."""
    layout = agent_settings.layout
    yield layout
    for path in (layout.downloader, layout.pending, layout.verified):
        left = names(path)
        for name in left:
            subprocess.run(["rm", "-rf", path / name], check=True)
        assert left == [], path


@pytest.fixture
def download(agent_settings: Settings) -> Callable[..., TransferName]:
    """Put a file where the downloader would."""

    def make(data: bytes = DATA, claimed: Digest | None = None) -> TransferName:
        name = TransferName(uuid4(), claimed or Digest.of(data))
        path = agent_settings.layout.download(name)
        path.write_bytes(data)
        path.chmod(0o640)
        account = find_account(agent_settings.owners["downloader"])
        os.chown(path, account.user, account.group)
        return name

    return make


def run_as(settings: Settings, role: str, *command: str | Path) -> int:
    """Run a command as the account of a role; give its status."""
    account = find_account(settings.owners[role])
    return subprocess.run(
        command,
        user=account.user,
        group=account.group,
        extra_groups=[],
        capture_output=True,
        check=False,
    ).returncode


def test_download_that_is_what_it_claims_is_published_under_its_digest(
    verifier: Verifier,
    download: Callable[..., TransferName],
    layout: Layout,
    agent_settings: Settings,
) -> None:
    """The very inode goes on; it is the verifier's, readable by volumemgr, writable by nobody."""
    name = download()
    inode = layout.download(name).stat().st_ino

    path = verifier.verify(name, len(DATA))

    assert path == layout.verified / name.digest.hex
    status = path.stat()
    assert (status.st_ino, status.st_nlink, status.st_mode & 0o7777) == (inode, 1, 0o440)
    assert status.st_uid == find_account(agent_settings.owners["verifier"]).user
    assert status.st_gid == find_group(agent_settings.owners["volumemgr"])
    assert path.read_bytes() == DATA
    path.unlink()


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", DATA[:-1] + b"x", b""])
def test_download_with_other_bytes_is_removed(
    data: bytes, verifier: Verifier, download: Callable[..., TransferName], layout: Layout
) -> None:
    """Nothing is left in any directory; the error tells both digests."""
    name = download(data, Digest.of(DATA))

    with pytest.raises(DigestMismatchError) as caught:
        verifier.verify(name)

    assert caught.value.details == {
        "expected": str(Digest.of(DATA)),
        "actual": str(Digest.of(data)),
    }


def test_download_with_another_size_is_removed_before_it_is_read(
    verifier: Verifier, download: Callable[..., TransferName], layout: Layout
) -> None:
    """The error tells both sizes."""
    with pytest.raises(SizeMismatchError, match=f"has {len(DATA)} bytes, expected 5"):
        verifier.verify(download(), 5)


def test_download_that_does_not_exist_is_not_found(verifier: Verifier, layout: Layout) -> None:
    """And nothing appears for it."""
    with pytest.raises(SourceNotFoundError):
        verifier.verify(TransferName(uuid4(), Digest.of(DATA)))


def test_verified_file_that_is_downloaded_again_is_replaced(
    verifier: Verifier, download: Callable[..., TransferName], layout: Layout
) -> None:
    """What an earlier run left may have lost bytes in a power cut."""
    broken = layout.verified / Digest.of(DATA).hex
    broken.write_bytes(b"lost")

    path = verifier.verify(download())

    assert path == broken
    assert path.read_bytes() == DATA
    path.unlink()


def make_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def make_dangling_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


def make_second_name(path: Path) -> None:
    os.link(path, path.with_name("second"))


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


@pytest.mark.parametrize(
    "spoil",
    [make_symlink, make_dangling_symlink, make_second_name, make_pipe, make_directory],
    ids=lambda spoil: spoil.__name__,
)
def test_download_that_is_no_plain_file_is_refused_and_removed(
    spoil: Callable[[Path], None],
    verifier: Verifier,
    download: Callable[..., TransferName],
    layout: Layout,
) -> None:
    """A downloader that was taken over cannot make us read, or keep a way into what we read."""
    name = download()
    spoil(layout.download(name))

    with pytest.raises(IntegrityError, match="is not a regular file with one name"):
        verifier.verify(name)

    layout.download(name).with_name("second").unlink(missing_ok=True)
    assert Path("/etc/passwd").exists()


def test_download_that_somebody_still_writes_is_refused_and_removed(
    verifier: Verifier, download: Callable[..., TransferName], layout: Layout
) -> None:
    """The writer could change it after it was hashed."""
    name = download()
    with (
        layout.download(name).open("r+b"),
        pytest.raises(IntegrityError, match="no writer"),
    ):
        verifier.verify(name)


def test_writer_that_waits_for_the_hand_over_to_end_gets_nothing(
    verifier: Verifier,
    download: Callable[..., TransferName],
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It passed the check of permissions while the file was still the downloader's."""
    name = download()
    path = layout.pending / str(name)
    threads: list[threading.Thread] = []

    def write() -> None:
        with path.open("r+b") as file:
            file.write(b"forged")

    from cas.fsops.takeover import ExclusiveInode

    unchanged = ExclusiveInode.unchanged

    def writer_comes(taken: ExclusiveInode) -> bool:
        result = unchanged(taken)
        if result and not threads and path.stat().st_uid:
            threads.append(threading.Thread(target=write))
            threads[0].start()
            wait_for(taken.has_waiting_writer)
        return result

    monkeypatch.setattr(ExclusiveInode, "unchanged", writer_comes)
    with pytest.raises(IntegrityError, match="opened for writing"):
        verifier.verify(name)
    threads[0].join()


def test_handed_over_file_is_out_of_the_downloaders_reach(
    download: Callable[..., TransferName], layout: Layout, agent_settings: Settings
) -> None:
    """It can neither be made writable again, nor renamed, removed, or even seen."""
    name = download()
    handover = HandOver(
        layout,
        find_account(agent_settings.owners["verifier"]).user,
        find_group(agent_settings.owners["volumemgr"]),
    )
    handover.take(name)
    handover.seal(name)
    path = layout.pending / str(name)

    for command in (
        ("chmod", "u+w", path),
        ("cat", path),
        ("rm", "-f", path),
        ("mv", path, layout.downloader),
        ("ls", layout.verifier),
    ):
        assert run_as(agent_settings, "downloader", *command) != 0, command
    path.unlink()


def test_no_agent_writes_in_a_directory_that_is_not_its_own(
    layout: Layout, agent_settings: Settings
) -> None:
    """Permissions alone see to it, whatever else stands; volumemgr's members only look."""
    own = {"downloader": layout.downloader, "verifier": layout.verified}
    for role, directory in own.items():
        others = [layout.vault, layout.case, layout.volumes, layout.verifier, layout.downloader]
        for other in set(others) - {directory, layout.verifier if role == "verifier" else None}:
            assert run_as(agent_settings, role, "touch", other / "foreign") != 0, (role, other)


def test_progress_of_a_verification_is_told_in_bytes(
    verifier: Verifier, download: Callable[..., TransferName], layout: Layout
) -> None:
    """Up to the last byte."""
    told: list[tuple[int, int | None]] = []

    verifier.verify(download(), progress=lambda done, total: told.append((done, total))).unlink()

    assert told[-1] == (len(DATA), len(DATA))


def test_cancelled_verification_is_taken_up_again(
    verifier: Verifier, download: Callable[..., TransferName], layout: Layout
) -> None:
    """The file waits in the verifier's hands."""
    name, cancel = download(), Cancellation()
    cancel.set()

    with pytest.raises(InterruptedOperationError):
        verifier.verify(name, cancel=cancel)

    verifier.verify(name).unlink()


def test_hand_over_killed_at_any_step_is_taken_up_again(
    verifier: Verifier,
    download: Callable[..., TransferName],
    layout: Layout,
    agent_settings: Settings,
) -> None:
    """Wherever the world stops, the next call ends with the verified file and nothing else."""
    account = find_account(agent_settings.owners["verifier"])
    handover = HandOver(layout, account.user, 0)
    step, killed = 0, True
    while killed:
        name = download()

        def hand_over(name: TransferName = name) -> None:
            handover.take(name)
            verify_pending(layout.verifier, name, None, lambda done, total: None)

        killed = kill_at(step, hand_over)
        step += 1
        if killed and not (layout.verified / name.digest.hex).exists():
            verifier.verify(name)
        assert (layout.verified / name.digest.hex).read_bytes() == DATA
        (layout.verified / name.digest.hex).unlink()
        assert names(layout.pending) == names(layout.downloader) == []
    assert step > 5
