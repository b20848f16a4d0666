"""qemu-img that is missing, fails, hangs or says nonsense; and what it may not do."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cas.agent.account import Account, find_account
from cas.confinement.launch import LAUNCH_FAILED, LAUNCH_MODULE, Order
from cas.containerd.client import Containerd
from cas.errors import (
    CasError,
    DeadlineExceededError,
    DiskImageError,
    InterruptedOperationError,
    QemuImgError,
    QemuImgMissingError,
    StorageError,
)
from cas.fsops.draft import DraftFile
from cas.fsops.effects import Effect, observed
from cas.model.cancellation import Cancellation
from cas.model.disk.format import DiskFormat
from cas.model.disk.record import DiskRequest
from cas.model.settings import Settings
from cas.model.volume_name import VolumeName
from cas.volumes.disk.program import ConfinedProgram, ProgramLimits
from cas.volumes.disk.qemu_img import QemuImg
from cas.volumes.status import RecoveryAction
from tests.support.disks import MIB, add_disk, change_disk, content_of
from tests.support.volumes import Recorder, Store, open_store, volume_name

pytestmark = pytest.mark.once  # files of disks: containerd has no part in them

Fake = Callable[[str], Store]
CREATE = DiskRequest(None, size=MIB, format=DiskFormat.QCOW2)


@pytest.fixture
def fake(containerd: Containerd, settings: Settings) -> Iterator[Fake]:
    """Make a store whose qemu-img is a script."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)

        def make(script: str) -> Store:
            binary = Path(directory) / "qemu-img"
            binary.write_text(f"#!/bin/sh\n{script}\n")
            binary.chmod(0o755)
            owners = {**settings.owners, "verifier": "nobody"}
            return open_store(
                containerd, replace(settings, qemu_img_binary=str(binary), owners=owners)
            )

        yield make


def refused(store: Store, error: type[CasError], words: str) -> None:
    with pytest.raises(error, match=words):
        store.volumes.prepare_disk(volume_name(), CREATE)
    store.assert_nothing_is_running()
    assert list(store.volumes.iter_volumes()) == []


def _take_and_remove(store: Store, name: VolumeName) -> None:
    store.volume_snapshots.create([name], "two")
    store.volume_snapshots.remove(name, "two")


@pytest.mark.parametrize("action", ["-c", "-a", "-d"])
def test_snapshots_survive_a_qemu_img_that_fails(fake: Fake, store: Store, action: str) -> None:
    """What it could not do has not happened, or is left to a recovery with a better one."""
    name = volume_name()
    path = store.volumes.prepare_disk(name, CREATE).rootfs
    store.volume_snapshots.create([name], "one")
    change_disk(path, "qcow2", 2)
    failing = fake(f'case " $* " in *" {action} "*) echo no >&2; exit 1;; esac; exec qemu-img "$@"')

    if action == "-d":
        failing.volume_snapshots.roll_back([name], "one")
        assert [each.action for each in store.volumes.recover()] == [
            RecoveryAction.FINISHED_SNAPSHOT
        ]
    else:
        with pytest.raises(QemuImgError, match="no"):
            failing.volume_snapshots.roll_back([name], "one")
    with pytest.raises(QemuImgError):
        _take_and_remove(failing, name)

    store.volumes.recover()
    assert store.volumes.recover() == []
    assert [each.name for each in store.volume_snapshots.iter_snapshots(name)] == ["one"]
    listed = subprocess.run(
        ["qemu-img", "snapshot", "-l", str(path)], check=True, capture_output=True, text=True
    ).stdout
    assert listed.count("cas-") == 1
    kept = bytes([0 if action == "-d" else 2]) * MIB
    assert content_of(path, "qcow2", path.parents[2]) == kept
    assert path.stat().st_uid == 0


def test_missing_qemu_img_is_said_and_raw_disks_do_without(
    containerd: Containerd, settings: Settings
) -> None:
    """The message names the package."""
    store = open_store(containerd, replace(settings, qemu_img_binary="/nonexistent/qemu-img"))

    refused(store, QemuImgMissingError, "install qemu-utils")

    reference = add_disk(store, b"raw" * 1000)
    store.volumes.prepare_disk(volume_name(), DiskRequest(reference, size=MIB))
    store.volumes.prepare_disk(volume_name(), DiskRequest(None, size=MIB))


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("echo no luck >&2; exit 3", QemuImgError, "create ended with status 3: no luck"),
        ("exit 1", QemuImgError, "it said nothing"),
        ("""exec perl -e 'unpack "p", pack "J", 1'""", QemuImgError, "by SIGSEGV"),
        ("exec perl -e 'print 1 x 3e6; exit 4'", QemuImgError, "status 4"),
        ("exec yes >&2", QemuImgError, "said more than"),
        ("exec head -c 100000000 /dev/zero > $5", QemuImgError, "create ended"),
    ],
)
def test_failing_qemu_img_ends_with_its_own_words_and_leaves_nothing(
    fake: Fake, script: str, error: type[CasError], words: str
) -> None:
    """However it ends, and however much it says."""
    refused(fake(script), error, words)


def test_hanging_qemu_img_is_ended(tmp_path: Path) -> None:
    """It counts as hanging when it says nothing for long."""
    binary = tmp_path / "qemu-img"
    binary.write_text("#!/bin/sh\nexec sleep 600\n")
    binary.chmod(0o755)
    qemu = QemuImg(str(binary), account=lambda: Account(0, 0), silence_seconds=0.1)

    with (
        DraftFile(tmp_path / "disk") as draft,
        pytest.raises(DeadlineExceededError, match=r"said nothing for 0\.1 s"),
    ):
        qemu.create(draft, DiskFormat.QCOW2, MIB)


def test_cancelling_ends_qemu_img(fake: Fake, images: Callable[..., bytes], tmp_path: Path) -> None:
    """At once, and undoes everything."""
    stop = Cancellation()
    store = fake(
        'case $1 in info|check) exec qemu-img "$@";; esac; echo "(1.00/100%)"; exec sleep 600'
    )
    reference = add_disk(store, images("raw"))
    progress = Recorder()
    progress.advance = lambda *_: stop.set()  # type: ignore[method-assign]

    with pytest.raises(InterruptedOperationError):
        store.volumes.prepare_disk(
            volume_name(),
            DiskRequest(reference, format=DiskFormat.QCOW2),
            cancel=stop,
            progress=progress,
        )
    store.assert_nothing_is_running()


@pytest.mark.parametrize(
    "answer",
    [
        "no json",
        '{"format": "qcow2"}',
        '{"format": "qcow2", "virtual-size": 5}',
        '{"format": "qcow2", "virtual-size": 4194304, "backing-filename": "/etc/shadow"}',
    ],
)
def test_image_that_qemu_sees_otherwise_is_refused(
    fake: Fake, images: Callable[..., bytes], answer: str
) -> None:
    """Two pairs of eyes must see the same."""
    store = fake(f"echo '{answer}'")
    reference = add_disk(store, images("qcow2"))

    with pytest.raises(DiskImageError):
        store.volumes.prepare_disk(volume_name(), DiskRequest(reference))

    store.assert_nothing_is_running()


_PROBE = """exec perl -MSocket -e '
open(OUT, ">", $ARGV[6]);
print OUT "$>\n";
print OUT "STATUS\n" if open(F, "<", "/proc/self/status");
print OUT "LISTED\n" if opendir(D, $ARGV[0]);
print OUT "READ\n" if open(F, "<", "/etc/passwd");
print OUT "WROTE\n" if open(F, ">", "$ARGV[0]/written");
print OUT "SIGNALLED\n" if kill(0, $ARGV[1]);
print OUT "SIGNALLED ITSELF\n" if kill(0, $$);
print OUT "SOCKET\n" if socket(S, PF_INET, SOCK_STREAM, 0);
print OUT "UNIX SOCKET\n" if socket(S, PF_UNIX, SOCK_STREAM, 0);
print OUT "FORKED\n" if defined(fork());
print OUT "END\n";
' DIRECTORY PROCESS "$@"
"""


def test_qemu_img_runs_without_rights(fake: Fake, tmp_path: Path) -> None:
    """Neither root, nor with sockets or children, nor near any file but those it is given."""
    probe = _PROBE.replace("DIRECTORY", str(tmp_path)).replace("PROCESS", str(os.getpid()))
    store = fake(probe)
    name = volume_name()
    store.volumes.prepare_disk(name, CREATE)

    report = store.settings.layout.disk(name, clear=False).file.read_text().splitlines()
    assert report == [str(find_account("nobody").user), "END"]
    assert not (tmp_path / "written").exists()


def test_machine_that_starts_before_a_rollback_fails_keeps_what_it_writes(
    fake: Fake, store: Store, tmp_path: Path
) -> None:
    """As qemu-img does when it finds the machine's lock; no recovery takes the disk back later."""
    name = volume_name()
    path = store.volumes.prepare_disk(name, CREATE).rootfs
    store.volume_snapshots.create([name], "one")
    failing = fake('case " $* " in *" -a "*) echo locked >&2; exit 1;; esac; exec qemu-img "$@"')
    lent = 0

    def start_machine(effect: Effect, changed: str) -> None:
        nonlocal lent
        lent += effect is Effect.ACCESS and changed == str(path)
        if lent == 3:  # the file was lent to keep the present state, taken back, and is lent again
            machine.enter_context(path.open("rb"))

    with ExitStack() as machine:
        with observed(start_machine), pytest.raises(QemuImgError, match="locked"):
            failing.volume_snapshots.roll_back([name], "one")
        change_disk(path, "qcow2", 3)
    store.volumes.recover()
    assert content_of(path, "qcow2", tmp_path) == b"\3" * MIB
    assert [each.name for each in store.volume_snapshots.iter_snapshots(name)] == ["one"]
    store.assert_nothing_is_running()


@pytest.mark.parametrize(("required", "status"), [(True, LAUNCH_FAILED), (False, 0)])
def test_program_without_walls_is_refused_where_confinement_is_required(
    required: bool, status: int
) -> None:
    """Either way it is said what is lacking."""
    order = Order(
        command=["/bin/true"],
        user=find_account("nobody").user,
        group=find_account("nobody").group,
        parent=os.getpid(),
        memory_bytes=64 * MIB,
        cpu_seconds=0,
        file_bytes=0,
        paths="too old",
        system_calls=b"",
        required=required,
    )
    command = [sys.executable, "-I", "-m", LAUNCH_MODULE]

    done = subprocess.run(command, input=order.encode(), capture_output=True, check=False)

    assert done.returncode == status
    assert b"lacks seccomp: libseccomp" in done.stderr
    assert b"lacks landlock: too old" in done.stderr


def test_program_is_not_run_without_rules_because_no_file_can_be_opened() -> None:
    """What the kernel lacks for a moment is no wall that it lacks."""
    program = ConfinedProgram("/bin/true", find_account("nobody"), require_confinement=False)
    limits = ProgramLimits(silence_seconds=30, memory_bytes=64 * MIB, cpu_seconds=0, file_bytes=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(StorageError, match="EMFILE"):
            program.run([], files=[], limits=limits)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
