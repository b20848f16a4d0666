"""What an installation from the wheel has, seen from outside the source tree.

The other tests import the working tree, where nothing can be missing. Here the archives are built
the way a release is, the wheel from the source archive, and installed into an environment of its
own.
"""

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from cas import __version__

ROOT = Path(__file__).parents[2]
RETRY = ROOT / "hack/retry"  # an index that fails for a minute is no fault of the package
STUB = "cas/_gen/containerd/services/content/v1/content_pb2"

# Builds and an installation, each of which asks the package index.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stderr}"
    return done.stdout


def _files(directory: str, pattern: str) -> set[str]:
    found = (path.relative_to(ROOT) for path in (ROOT / directory).rglob(pattern))
    return {path.as_posix() for path in found if "_gen" not in path.parts}


@pytest.fixture(scope="module")
def sources() -> set[str]:
    """Modules and declarations of the tree, as they were before the build."""
    return _files("cas", "*.py") | _files("protos", "*.proto")


@pytest.fixture(scope="module")
def archives(sources: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the source archive and the wheel made from it."""
    out = tmp_path_factory.mktemp("dist")
    _run(RETRY, sys.executable, "-m", "build", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(archives: Path) -> Path:
    (found,) = archives.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a new environment that has nothing but the wheel and its needs."""
    prefix = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(prefix, with_pip=True)
    _run(RETRY, prefix / "bin/python", "-m", "pip", "install", "--quiet", wheel, cwd=prefix)
    return prefix / "bin"


def test_source_archive_carries_declarations_but_no_stubs(
    archives: Path, sources: set[str]
) -> None:
    """A source archive has what makes the stubs, the licence and the tests, not the stubs."""
    (path,) = archives.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources | {"generate_stubs.py", "pyproject.toml", "LICENSE", "cas/py.typed"} <= names
    assert "tests/unit/test_packaging.py" in names
    assert not any(name.startswith("cas/_gen") for name in names)


def test_wheel_contains_package_stubs_types_and_units_only(wheel: Path, sources: set[str]) -> None:
    """A wheel has every module, a stub of each kind per declaration, and what systemd wants."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {name for name in sources if name.endswith(".py")}
    declared = {name.removesuffix(".proto").removeprefix("protos/") for name in sources - modules}
    endings = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")
    stubs = {f"cas/_gen/{name}{ending}" for name in declared for ending in endings}
    assert modules | stubs | {"cas/py.typed"} <= names
    home = f"eve_cas-{__version__}"
    assert {name.split("/")[0] for name in names} == {"cas", f"{home}.dist-info", f"{home}.data"}
    assert {name for name in names if name.startswith(f"{home}.data")} == {
        f"{home}.data/data/lib/{name}"
        for name in (
            "systemd/system/cas.service",
            "systemd/system/cas-vault.service",
            "sysusers.d/cas.conf",
            "tmpfiles.d/cas.conf",
        )
    }


def test_command_of_an_installation_prints_help_and_version(
    environment: Path, tmp_path: Path
) -> None:
    """The console script runs outside the tree, and is the version that was built."""
    assert "Usage: cas" in _run(environment / "cas", "--help", cwd=tmp_path)
    versions = _run(environment / "cas", "--persist", tmp_path, "--json", "version", cwd=tmp_path)
    assert json.loads(versions)["cas"] == __version__


def test_stub_of_an_installation_imports_and_speaks_protobuf(
    environment: Path, tmp_path: Path
) -> None:
    """Generated code fits the grpcio and protobuf that the wheel's bounds bring."""
    module = STUB.replace("/", ".")
    program = (
        f"import cas, {module} as stub, {module}_grpc as service\n"
        "request = stub.WriteContentRequest(ref='r', action=stub.COMMIT)\n"
        "print(cas.__file__, request.SerializeToString().hex(), service.ContentStub.__name__)"
    )
    where, encoded, name = _run(environment / "python", "-c", program, cwd=tmp_path).split()
    assert Path(where).is_relative_to(environment.parent)
    assert (encoded, name) == ("0802120172", "ContentStub")


def test_types_of_an_installation_are_seen_by_mypy(environment: Path, tmp_path: Path) -> None:
    """A project that uses the wheel is checked against its annotations."""
    (tmp_path / "user.py").write_text(
        "from cas.model.digest import Digest\nwrong: int = Digest.parse('sha256:' + 64 * '0')\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable"]
    done = subprocess.run(
        [*command, environment / "python", "--cache-dir", tmp_path / "cache", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Incompatible types in assignment" in done.stdout
    assert "import-untyped" not in done.stdout
