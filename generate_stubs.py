"""Build hook: compiles protos/ into the package cas._gen.

Runs for wheels and for editable installs; a source distribution carries protos/ and this
file instead of the result. The directory is replaced as a whole, so that no stub outlives
its declaration.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Python's imports follow a file's path, not its proto package. Seen by protoc under this
# path, protos/containerd/types becomes cas._gen.containerd.types and shadows no module.
# Everybody else, whatever their language, compiles the files from protos/ as they are.
IMPORT_PATH = "cas/_gen"
IMPORT = re.compile(r'^import "(.+)";$', re.MULTILINE)


class GenerateStubs(BuildHookInterface[Any]):
    """Makes cas/_gen before hatchling collects the files of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Compile every .proto file; a failure of protoc ends the build."""
        root = Path(self.root)
        with tempfile.TemporaryDirectory(prefix=".gen-", dir=root) as scratch:
            compile_protos(root / "protos", Path(scratch))
            shutil.rmtree(root / IMPORT_PATH, ignore_errors=True)
            shutil.move(Path(scratch, IMPORT_PATH), root / IMPORT_PATH)


def compile_protos(protos: Path, out: Path) -> None:
    """Write modules, gRPC stubs and type stubs of all files in protos below out."""
    plugins = ("python", "grpc_python", "mypy", "mypy_grpc")
    source = out / "protos"
    files = sorted(move_below_import_path(protos, source))
    # The type stub plugins are scripts beside the interpreter, which PATH need not name.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{source}"]
        + [f"--{plugin}_out={'quiet:' if 'mypy' in plugin else ''}{out}" for plugin in plugins]
        + files,
        env={**os.environ, "PATH": path},
        check=True,
    )
    for package in (p for p in (out / IMPORT_PATH).rglob("*") if p.is_dir()):
        (package / "__init__.py").touch()
    (out / IMPORT_PATH / "__init__.py").touch()


def move_below_import_path(protos: Path, out: Path) -> list[str]:
    """Copy all files to IMPORT_PATH below out, imports of each other included; give their paths."""
    names = {str(path.relative_to(protos)) for path in protos.rglob("*.proto")}

    def moved(match: re.Match[str]) -> str:
        return f'import "{IMPORT_PATH}/{match[1]}";' if match[1] in names else match[0]

    for name in names:
        copy = out / IMPORT_PATH / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(IMPORT.sub(moved, (protos / name).read_text(encoding="utf-8")))
    return [f"{IMPORT_PATH}/{name}" for name in names]
