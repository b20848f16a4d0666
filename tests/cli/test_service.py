"""Which way a command takes: through the service, or straight to the store."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from cas.model.settings import ServiceUse, Settings
from tests.cli.conftest import Result, RunCas
from tests.support.command import CasProcess, write_configuration
from tests.support.images import layered_image
from tests.support.service_host import ServiceHost

NOBODY = 65534
GROUP = 54321
"""A group that no account of this machine has."""


class Ways:
    """Calls the command on one store with what the settings leave open.

    Args:
        settings: Of the store.
        run_cas: Calls the command.
        directory: For the configuration file.
    """

    def __init__(self, settings: Settings, run_cas: RunCas, directory: Path) -> None:
        self.settings = settings
        self.socket = settings.layout.run / f"{settings.namespace}.sock"
        self._run = run_cas
        self._config = write_configuration(directory, settings)
        settings.layout.plain_vault_warned.touch()

    def __call__(self, use: ServiceUse, *arguments: object, **more: object) -> Result:
        """Run a command; ``more`` are global options."""
        options = {"service-address": self.socket, **more}
        given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return self._run("--config", self._config, "--service", use, *given, *arguments)

    def begin(self, use: ServiceUse, *arguments: object) -> CasProcess:
        """Start a command in a process of its own."""
        options = ("--service", use, f"--service-address={self.socket}")
        return CasProcess(self._config, *options, *arguments)

    def goes_through_the_service(self, use: ServiceUse, **more: object) -> bool:
        """Whether the command says that a service answered."""
        result = self(use, "version", "--json", **more)
        assert result.status == 0, result.err
        return json.loads(result.out)["service"] is not None


@pytest.fixture
def ways(settings: Settings, run_cas: RunCas, tmp_path: Path) -> Ways:
    """Commands on the store of this test, of which no service runs."""
    return Ways(settings, run_cas, tmp_path)


@pytest.fixture
def served(ways: Ways, service_host: ServiceHost) -> Iterator[Ways]:
    """The same with a service that runs."""
    with service_host.serving(replace(ways.settings, service_address=ways.socket)):
        yield ways


def test_running_service_is_used_unless_told_otherwise(served: Ways) -> None:
    """And only then."""
    assert served.goes_through_the_service(ServiceUse.AUTO)
    assert served.goes_through_the_service(ServiceUse.ALWAYS)
    assert not served.goes_through_the_service(ServiceUse.NEVER)


def test_version_through_the_service_says_the_same(served: Ways) -> None:
    """Who answers is all that differs."""
    direct = json.loads(served(ServiceUse.NEVER, "version", "--json").out)
    through = json.loads(served(ServiceUse.ALWAYS, "version", "--json").out)

    assert through.pop("service") == {"cas": direct["cas"], "socket": str(served.socket)}
    assert direct.pop("service") is None
    assert through == direct


def test_absent_service_leaves_the_store_to_the_command(ways: Ways) -> None:
    """Nothing has to be configured for a machine without one."""
    assert not ways.goes_through_the_service(ServiceUse.AUTO)


def test_absent_service_that_must_be_used_is_unavailable(ways: Ways) -> None:
    """The message names the socket and what to run."""
    result = ways(ServiceUse.ALWAYS, "--json", "volume", "ls")

    error = json.loads(result.err)["error"]
    assert (result.status, error["reference"]) == (8, "service-unavailable")
    assert str(ways.socket) in error["message"]
    assert "cas serve" in error["message"]


@pytest.mark.parametrize(
    "command",
    [
        ("image", "pull", "127.0.0.1:1/nothing:1"),
        ("download", "http://127.0.0.1:1/x", "--digest", f"sha256:{'0' * 64}"),
        ("volume", "prepare", f"{UUID(int=1)}#0", "--image", "docker://127.0.0.1:1/nothing:1"),
    ],
)
def test_pull_where_an_absent_service_must_be_used_is_unavailable(
    ways: Ways, command: tuple[str, ...]
) -> None:
    """The store is not opened behind the back of whoever said so."""
    result = ways(ServiceUse.ALWAYS, "--json", *command)

    assert json.loads(result.err)["error"]["reference"] == "service-unavailable"


def test_commands_beside_the_service_work_on_the_store_at_the_same_time(
    served: Ways, tmp_path: Path
) -> None:
    """Locks hold between processes: what all of them make is made once, and the store is whole."""
    image = layered_image(3, name="example.com/both:1", seed=tmp_path.name)
    archive = image.write_oci_tar(tmp_path / "both.tar")
    name = f"{UUID(int=7)}#0"
    ways = [ServiceUse.ALWAYS, ServiceUse.NEVER] * 2
    for work in (
        ("image", "import", archive),
        ("volume", "prepare", name, "--image", image.name, "--activate"),
        ("prune", "--force"),
        ("volume", "rm", name, "--force"),  # of a name that is gone, not found
    ):
        with ExitStack() as stack:
            begun = [stack.enter_context(served.begin(way, *work)) for way in ways]
            results = [process.result() for process in begun]
        statuses = {result.status for result in results}
        assert statuses == {0} or (statuses == {0, 3} and "rm" in work), results

    for way in ways[:2]:
        assert json.loads(served(way, "check", "--read-data", "--json").out)["findings"] == []
        assert served(way, "volume", "ls", "-q").out == ""


def test_socket_of_a_killed_service_is_as_good_as_none(ways: Ways) -> None:
    """The file stays when the process is gone."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(ways.socket))

    assert not ways.goes_through_the_service(ServiceUse.AUTO)
    assert ways(ServiceUse.ALWAYS, "volume", "ls").status == 8


def test_service_that_accepts_and_never_answers_is_an_error(
    settings: Settings, run_cas: RunCas, tmp_path: Path
) -> None:
    """It may be at work on this very store, so nobody goes past it unasked."""
    ways = Ways(replace(settings, wait_seconds=1.0), run_cas, tmp_path)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(ways.socket))
        mute.listen()

        for use in (ServiceUse.AUTO, ServiceUse.ALWAYS):
            result = ways(use, "volume", "ls")
            assert (result.status, "[deadline-exceeded]" in result.err) == (8, True), result


@pytest.mark.parametrize("option", ["namespace", "address", "persist"])
def test_service_of_another_store_is_not_used(option: str, served: Ways) -> None:
    """The same names mean other objects there."""
    other = {
        "namespace": "t-other",
        "address": served.settings.persist / "other.sock",
        "persist": served.settings.persist / "other",
    }[option]

    refused = served(ServiceUse.ALWAYS, "volume", "ls", **{option: other})

    assert (refused.status, "[service-mismatch]" in refused.err) == (4, True)
    assert str(served.settings.persist) in refused.err
    if option == "namespace":
        assert not served.goes_through_the_service(ServiceUse.AUTO, namespace=other)


def test_persist_directory_behind_a_link_is_the_same_store(served: Ways, tmp_path: Path) -> None:
    """Directories are compared, not spellings."""
    link = tmp_path / "persist"
    link.symlink_to(served.settings.persist)

    assert served.goes_through_the_service(ServiceUse.ALWAYS, persist=link)


def test_too_long_socket_path_counts_only_where_it_is_needed(ways: Ways) -> None:
    """A long persist directory does not lock anybody out of a store without a service."""
    path = "/" + "x" * 120

    assert not ways.goes_through_the_service(ServiceUse.AUTO, service_address=path)
    result = ways(ServiceUse.ALWAYS, "volume", "ls", service_address=path)
    assert (result.status, "--service-address" in result.err) == (2, True)


def test_environment_and_configuration_choose_the_way(
    served: Ways, monkeypatch: pytest.MonkeyPatch, run_cas: RunCas, tmp_path: Path
) -> None:
    """As every other setting does."""
    config = tmp_path / "cas.toml"
    config.write_text(
        f'{config.read_text().partition("[owners]")[0]}service = "always"\n'
        f'service_address = "{served.socket}"\n'
    )
    told = run_cas("--config", config, "version", "--json")
    monkeypatch.setenv("CAS_SERVICE", "never")
    overridden = run_cas("--config", config, "version", "--json")

    assert json.loads(told.out)["service"] is not None
    assert json.loads(overridden.out)["service"] is None


def _as_somebody(settings: Settings, groups: list[int], *arguments: object) -> Result:
    """Run the command as nobody with supplementary groups."""
    # Imported as root, since the interpreter may lie where others cannot read.
    script = (
        "import os, sys, json, cas.app, cas.cli.configuration, cas.cli.volume, cas.cli.service\n"
        "import cas.rpc.client.volumes, cas.rpc.client.images, cas.rpc.client.archive_upload\n"
        "import cas.rpc.client.blobs, cas.cli.image, cas.cli.blob, cas.rpc.client.reading\n"
        "import cas.store.content.hashing, encodings.idna\n"
        "from cas.cli.main import main\n"
        f"os.setgroups(json.loads(sys.argv[1])); os.setresgid(*3 * [{NOBODY}])\n"
        f"os.setresuid(*3 * [{NOBODY}]); sys.exit(main(sys.argv[2:]))"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            json.dumps(groups),
            f"--persist={settings.persist}",
            f"--address={settings.socket}",
            f"--namespace={settings.namespace}",
            f"--service-address={settings.service_socket}",
            *map(str, arguments),
        ],
        env={"PATH": os.environ["PATH"], "CAS_CONFIG": "/dev/null"},
        capture_output=True,
        text=True,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def grouped(served: Ways) -> Iterator[Settings]:
    """The store of this test, whose service may be used by one group."""
    settings = replace(served.settings, service_address=served.socket)
    shutil.chown(served.socket, group=GROUP)
    before = [(path, path.stat().st_mode) for path in (settings.persist, settings.layout.run)]
    try:
        for path, _ in before:
            path.chmod(0o711)
        yield settings
    finally:
        for path, mode in before:
            path.chmod(mode & 0o7777)


def test_member_of_the_group_works_through_the_service(grouped: Settings, tmp_path: Path) -> None:
    """Without root: what only root may do is done by the service."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)

    ingested = _as_somebody(grouped, [GROUP], "blob", "ingest", file)
    listed = _as_somebody(grouped, [GROUP], "blob", "exists", ingested.out.strip())

    assert (ingested.status, ingested.err) == (0, "")
    assert listed.status == 0


def test_stranger_is_denied_the_service(grouped: Settings) -> None:
    """Neither through the socket nor past it."""
    result = _as_somebody(grouped, [], "volume", "ls")

    assert result.status == 9, result
    assert "member of the socket's group" in result.err
    assert "Traceback" not in result.err


def _imported(settings: Settings, use: ServiceUse, *arguments: str) -> set[str]:
    """Names of the modules that a command has loaded when it ends."""
    script = (
        "import sys, json; from cas.cli.main import main; status = main(sys.argv[1:]);"
        "print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "CAS_CONFIG": "/dev/null",
            "CAS_PERSIST": str(settings.persist),
            "CAS_ADDRESS": str(settings.socket),
            "CAS_NAMESPACE": settings.namespace,
            "CAS_SERVICE": use,
            "CAS_SERVICE_ADDRESS": str(settings.service_socket),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    status, modules = json.loads(done.stderr)
    assert status == 0
    return set(modules)


def test_command_through_the_service_does_not_load_the_library(served: Ways) -> None:
    """Neither the use cases nor the other adapter; that is a third of its start."""
    settings = replace(served.settings, service_address=served.socket)

    loaded = _imported(settings, ServiceUse.ALWAYS, "blob", "ls", "-q")

    needless = {"cas.app", "cas.containerd.client", "cas.store.content.ingest", "tarfile", "tqdm"}
    assert "cas.rpc.client" in loaded
    assert not loaded & needless


def test_command_without_the_service_does_not_load_its_client(ways: Ways) -> None:
    """The socket is tried before."""
    settings = replace(ways.settings, service_address=ways.socket)

    loaded = _imported(settings, ServiceUse.AUTO, "version")

    assert "cas.rpc.probe" in loaded
    assert "cas.rpc.client" not in loaded
