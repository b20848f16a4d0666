"""What an agent cannot do, found out by trying as the agent."""

import os
import re
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.agent.account import find_account
from cas.datastores.settings import SourceSettings
from cas.downloader.downloader import Downloader
from cas.model.settings import Settings
from cas.verifier.verifier import Verifier
from tests.integration.agents.conftest import StartProbe
from tests.support.probe import Probe
from tests.support.waiting import wait_for

ROLES = ("downloader", "verifier")


def probe_of(role: str, start_probe: StartProbe) -> Probe:
    return start_probe(role, network=role == "downloader")


@pytest.mark.parametrize("role", ROLES)
def test_agent_on_this_kernel_has_every_wall(role: str, start_probe: StartProbe) -> None:
    """The kernel of the tests has all that is asked for; nothing is missing in silence."""
    assert probe_of(role, start_probe).missing() == {}


@pytest.mark.parametrize("role", ROLES)
def test_agent_has_user_and_group_of_its_role_and_no_capability(
    role: str, start_probe: StartProbe, agent_settings: Settings
) -> None:
    """Nothing of root is left in any set, and nothing can be gained."""
    probe = probe_of(role, start_probe)

    ids = probe.attempt("(os.getresuid(), os.getresgid(), os.getgroups())")
    status = Path(f"/proc/{probe.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())

    account = find_account(agent_settings.owners[role])
    user, group = account.user, account.group
    assert 0 not in (user, group)
    assert ids == str(((user, user, user), (group, group, group), []))
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[capabilities], 16) == 0, capabilities
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "code",
    [
        "os.setuid(0)",
        "os.setgid(0)",
        "os.setgroups([0])",
        "os.chroot('.')",
        "os.fork()",
        "subprocess.run(['/bin/true'])",
        "os.execv('/bin/true', ['true'])",
        "os.execv('/usr/bin/passwd', ['passwd'])",
        # every capability there is, as the three sets of both halves
        "syscall('capset', struct.pack('II', 0x20080522, 0), b'\\xff' * 24)",
        "syscall('unshare', 0x10000000)",
        "syscall('unshare', 0x40000000)",
        "syscall('setns', 0, 0)",
        "syscall('clone', 0x10000000 | 17, 0, 0, 0, 0)",
        "syscall('ptrace', 16, os.getppid(), 0, 0)",
        "syscall('process_vm_readv', os.getppid(), 0, 0, 0, 0, 0)",
        "syscall('pidfd_open', os.getppid(), 0)",
        "syscall('io_uring_setup', 8, 0)",
        "syscall('bpf', 0, 0, 0)",
        "syscall('keyctl', 0, 0, 0)",
        "syscall('mount', 0, 0, 0, 0, 0)",
        "os.kill(os.getppid(), 0)",
        "os.kill(1, 0)",
        "syscall('tgkill', (1 << 22) + 1, 1, 0)",
        "syscall('rt_tgsigqueueinfo', os.getpid(), os.getpid(), 0, 0)",
        "os.mknod('node', 0o060600, 0x0801)",
    ],
)
def test_agent_that_tries_to_regain_rights_is_refused(
    role: str, code: str, start_probe: StartProbe
) -> None:
    """No program, process, namespace, mount, keyring or other process can be had."""
    assert probe_of(role, start_probe).attempt(code) in {"EPERM", "EACCES"}


@pytest.mark.parametrize("role", ROLES)
def test_agent_leaves_no_core_whatever_takes_cores(role: str, start_probe: StartProbe) -> None:
    """No limit counts where the kernel hands cores to a program."""
    probe = probe_of(role, start_probe)

    assert probe.attempt("syscall('prctl', 3, 0, 0, 0, 0)") == "0"
    assert probe.attempt("syscall('tgkill', os.getpid(), threading.get_native_id(), 0)") == "0"


@pytest.fixture
def cores_allowed() -> Iterator[None]:
    """Let what this process starts leave cores, as large as the machine allows."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.usefixtures("cores_allowed")
def test_agent_leaves_no_core_before_it_is_told_anything(agent_settings: Settings) -> None:
    """The first line holds credentials, so the process may be no core from before it on.

    Run as root: no change of user then makes it so by itself (fs.suid_dumpable).
    """
    root, directory = find_account("root"), agent_settings.layout.verifier
    with Probe(directory, root, require=False) as probe:
        limits = Path(f"/proc/{probe.pid}/limits")
        wait_for(lambda: re.search(r"core file size +0 +0 ", limits.read_text()) is not None)

        assert probe.attempt("dumpable_when_told") == "0"
        assert probe.attempt("syscall('prctl', 3, 0, 0, 0, 0)") == "0"


def test_agent_writes_no_larger_file_than_it_was_given(start_probe: StartProbe) -> None:
    """Whatever it was made to do, and it cannot give itself more."""
    probe = start_probe("downloader", file_bytes=100)

    assert probe.attempt("Path('small').write_bytes(bytes(100))") == "100"
    assert probe.attempt("Path('large').write_bytes(bytes(101))") == "EFBIG"
    assert (
        probe.attempt("syscall('prlimit64', 0, 1, struct.pack('QQ', 2**40, 2**40), 0)") == "EPERM"
    )
    assert probe.attempt("[os.unlink(each) for each in ('small', 'large')]") == "[None, None]"


@pytest.mark.parametrize(
    ("start", "most"),
    [
        (lambda settings: Downloader(settings, SourceSettings(url="http://h")), 2**20 + 2**16),
        (Verifier, 0),
    ],
    ids=ROLES,
)
def test_files_of_an_agent_end_at_the_limit_of_a_blob(
    start: Callable[[Settings], Downloader | Verifier], most: int, agent_settings: Settings
) -> None:
    """The kernel sees to it, should the downloader not; the verifier writes none."""
    limits = replace(agent_settings.limits, blob_bytes=2**20, document_bytes=2**19)

    with start(replace(agent_settings, limits=limits)) as agent:
        agent.missing()
        told = Path(f"/proc/{agent._process.pid}/limits").read_text()

    assert re.search(rf"Max file size +{most} +{most} ", told), told


@pytest.mark.parametrize("role", ROLES)
def test_agent_that_asks_for_clone3_is_told_that_there_is_none(
    role: str, start_probe: StartProbe
) -> None:
    """Its flags cannot be filtered; the C library has another way to make threads."""
    probe = probe_of(role, start_probe)

    assert probe.attempt("syscall('clone3', 0, 0)") == "ENOSYS"
    assert (
        probe.attempt("t = threading.Thread(target=int)\nt.start()\nt.join()\nvalue = 'ok'") == "ok"
    )


@pytest.mark.parametrize(
    "family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"]
)
def test_verifier_that_opens_a_socket_is_refused(family: str, start_probe: StartProbe) -> None:
    """There is no way out of the verifier."""
    probe = start_probe("verifier")

    assert probe.attempt(f"socket.socket(socket.{family}, socket.SOCK_DGRAM)") == "EPERM"
    assert probe.attempt("socket.socketpair()") == "EPERM"


def test_verifier_lives_in_a_network_namespace_of_its_own(start_probe: StartProbe) -> None:
    """Should a socket be had nevertheless, it leads nowhere."""
    probe = start_probe("verifier")

    theirs, ours = Path(f"/proc/{probe.pid}/ns/net"), Path("/proc/self/ns/net")
    assert theirs.readlink() != ours.readlink()


def test_downloader_reaches_the_internet_families_and_no_other(start_probe: StartProbe) -> None:
    """TCP works; local services, raw packets and listening do not."""
    probe = start_probe("downloader", network=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connected = probe.attempt(f"socket.create_connection(('127.0.0.1', {port})).close()")

    assert connected == "None"
    assert probe.attempt("socket.getaddrinfo('localhost', 80)") != "EPERM"
    for family in ("AF_UNIX", "AF_PACKET", "AF_VSOCK", "AF_ALG", "AF_CAN"):
        assert probe.attempt(f"socket.socket(socket.{family}, socket.SOCK_RAW)") == "EPERM", family
    assert probe.attempt("syscall('socket', (1 << 32) | 1, 1, 0)") == "EPERM"
    assert probe.attempt("socket.socket().listen()") == "EPERM"


@pytest.mark.parametrize("role", ROLES)
def test_agent_writes_in_its_directory_and_nowhere_else(
    role: str, start_probe: StartProbe, agent_settings: Settings, tmp_path: Path
) -> None:
    """Not even where permission bits would let it."""
    probe = probe_of(role, start_probe)
    tmp_path.chmod(0o777)
    open_to_all = tmp_path / "open"
    open_to_all.write_bytes(b"old")
    open_to_all.chmod(0o666)

    assert probe.attempt("Path('own').write_text('x')") == "1"
    assert probe.attempt("os.rename('own', 'other')") == "None"
    assert probe.attempt(f"Path({str(tmp_path / 'new')!r}).write_text('x')") == "EACCES"
    assert probe.attempt(f"Path({str(open_to_all)!r}).write_text('x')") == "EACCES"
    assert probe.attempt(f"os.truncate({str(open_to_all)!r}, 0)") == "EACCES"
    assert probe.attempt(f"os.unlink({str(open_to_all)!r})") == "EACCES"
    assert probe.attempt(f"os.rename('other', {str(tmp_path / 'other')!r})") == "EACCES"
    assert probe.attempt("Path('/tmp/cas-probe').write_text('x')") == "EACCES"
    assert probe.attempt("Path('/etc/shadow').write_text('x')") == "EACCES"
    assert open_to_all.read_bytes() == b"old"
    assert probe.attempt("os.unlink('other')") == "None"


@pytest.mark.parametrize("role", ROLES)
def test_agent_makes_regular_files_only(role: str, start_probe: StartProbe) -> None:
    """No links, directories, pipes or sockets that others might trip over."""
    probe = probe_of(role, start_probe)

    assert probe.attempt("os.symlink('/etc/passwd', 'link')") == "EACCES"
    assert probe.attempt("os.mkdir('directory')") == "EACCES"
    assert probe.attempt("os.mkfifo('pipe')") == "EACCES"
    # Landlock answers so where the right to link from there is missing.
    assert probe.attempt("os.link('/etc/passwd', 'name')") in {"EXDEV", "EPERM"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", "/proc/self/environ", "/dev/kmsg"])
def test_agent_that_reads_elsewhere_is_refused(
    role: str, path: str, start_probe: StartProbe
) -> None:
    """Nor can it list directories."""
    probe = probe_of(role, start_probe)

    assert probe.attempt(f"Path({path!r}).read_bytes()") == "EACCES"
    assert probe.attempt("os.listdir('/')") == "EACCES"


def test_agents_cannot_reach_each_other_or_the_store(
    start_probe: StartProbe, agent_settings: Settings
) -> None:
    """The downloader does not see what is verified, and neither sees the store."""
    layout = agent_settings.layout
    downloader, verifier = start_probe("downloader"), start_probe("verifier")

    for probe, others in (
        (downloader, (layout.verifier, layout.case, layout.volumes)),
        (verifier, (layout.downloader, layout.case, layout.volumes)),
    ):
        for path in others:
            assert probe.attempt(f"os.listdir({str(path)!r})") == "EACCES"
            assert probe.attempt(f"Path({str(path / 'x')!r}).write_text('x')") == "EACCES"
    assert downloader.attempt(f"os.kill({verifier.pid}, 9)") == "EPERM"


@pytest.mark.parametrize("role", ROLES)
def test_agent_inherits_no_descriptor_and_no_environment(
    role: str, start_probe: StartProbe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither open files nor credentials of whoever started it."""
    monkeypatch.setenv("CAS_TEST_PASSWORD", "not for agents")
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        probe = probe_of(role, start_probe)

        kinds = {
            str(entry.readlink()).partition(":")[0]
            for entry in Path(f"/proc/{probe.pid}/fd").iterdir()
        }
    environment = Path(f"/proc/{probe.pid}/environ").read_bytes()

    assert kinds == {"pipe"}
    assert b"PASSWORD" not in environment
    assert b"HOME" not in environment


def test_volumemgr_measures_the_downloads_and_cannot_write_there(
    agent_settings: Settings,
) -> None:
    """A member of its group sees names and sizes."""
    path = agent_settings.layout.downloader / "measured"
    path.write_bytes(b"12345")
    owner = agent_settings.layout.downloader.stat()

    def as_volumemgr(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            user=65534,
            group=owner.st_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        assert as_volumemgr("stat", "--format=%s", str(path)).stdout == "5\n"
        assert as_volumemgr("touch", str(path.parent / "foreign")).returncode != 0
        assert as_volumemgr("rm", "-f", str(path)).returncode != 0
    finally:
        path.unlink()
