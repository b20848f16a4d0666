"""Rules on the source that neither the linter nor the import contracts can see.

ruff bans functions by their name but not methods such as ``Path.rename``, and its bans can be
lifted for a whole file. Here each rule is a function from a syntax tree to what breaks it, applied
to every module of the package and to samples that must be caught.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path for path in (ROOT / "cas").rglob("*.py") if "_gen" not in path.relative_to(ROOT).parts
)

Rule = Callable[[ast.Module], Iterator[str]]

EFFECTS = {
    *(f"os.{name}" for name in ("rename", "renames", "replace", "link", "symlink")),
    *(f"os.{name}" for name in ("unlink", "remove", "rmdir", "removedirs")),
    *(f"os.{name}" for name in ("fsync", "fdatasync", "sync")),
    *("shutil.move", "shutil.rmtree", "fcntl.flock", "fcntl.lockf"),
}
EFFECT_METHODS = {"rename", "unlink", "rmdir", "symlink_to", "hardlink_to"}
EFFECT_PROGRAMS = {"mount", "umount", "mv", "ln", "rm", "rmdir", "sync", "flock"}
SYSTEM_CALL_MODULES = ("ctypes", "cffi")
MAKERS_OF_SYSTEM_CALLS = ["cas/fsops/", "cas/confinement/"]
RPC_MODULES = ("grpc", "google", "cas._gen")
AMBIENT = {
    *("os.environ", "os.environb", "os.getenv", "os.getcwd", "os.getcwdb", "pathlib.Path.cwd"),
    *("sys.argv", "time.time", "time.time_ns", "datetime.date.today"),
    *(f"datetime.datetime.{name}" for name in ("now", "utcnow", "today")),
}


def _imports(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield line, local name and full dotted name of everything imported, anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.partition(".")[0]
                yield node.lineno, local, alias.name if alias.asname else local
                yield node.lineno, local, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, f"{node.module}.{alias.name}"


def _references(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted name of each use of something imported."""
    known = {local: full for _, local, full in reversed(list(_imports(tree)))}
    for node in ast.walk(tree):
        parts: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            parts.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in known:
            yield inner.lineno, ".".join([known[inner.id], *parts])


def _is_within(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _is_path_replace(call: ast.Call) -> bool:
    # str.replace takes two, datetime.replace and dataclasses.replace take keywords.
    return len(call.args) == 1 and not call.keywords


def _runs_effect_program(node: ast.AST) -> bool:
    if not isinstance(node, ast.List) or not node.elts:
        return False
    first = node.elts[0]
    return isinstance(first, ast.Constant) and first.value in EFFECT_PROGRAMS


def file_system_effects(tree: ast.Module) -> Iterator[str]:
    """Find what renames, links, unlinks, syncs, locks or mounts."""
    for line, name in _references(tree):
        if name in EFFECTS:
            yield f"{line}: {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func.attr
            if method in EFFECT_METHODS or (method == "replace" and _is_path_replace(node)):
                yield f"{node.lineno}: .{method}()"
        elif isinstance(node, ast.List) and _runs_effect_program(node):
            yield f"{node.lineno}: {ast.unparse(node)}"


def system_call_imports(tree: ast.Module) -> Iterator[str]:
    """Find what can make any system call at all."""
    for line, _, name in _imports(tree):
        if _is_within(name, SYSTEM_CALL_MODULES):
            yield f"{line}: import {name}"


def rpc_imports(tree: ast.Module) -> Iterator[str]:
    """Find imports of gRPC, protobuf and generated code."""
    for line, _, name in _imports(tree):
        if _is_within(name, RPC_MODULES):
            yield f"{line}: import {name}"


def ambient_reads(tree: ast.Module) -> Iterator[str]:
    """Find reads of environment, arguments, working directory and current time."""
    for line, name in _references(tree):
        if name in AMBIENT:
            yield f"{line}: {name}"


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those in its top-level conditions included."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handled = [statement for handler in node.handlers for statement in handler.body]
            yield from _statements([*node.body, *handled, *node.orelse, *node.finalbody])


def _belongs_to_group(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a function is a subcommand, which is reached through its group only."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute):
            owner = decorator.func
            if owner.attr in {"command", "group"} and ast.unparse(owner.value) != "click":
                return True
    return False


def _defined_names(tree: ast.Module) -> Iterator[str]:
    for node in _statements(tree.body):
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not _belongs_to_group(node):
                yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))


def _exports(tree: ast.Module) -> tuple[int, list[str]] | None:
    """Return position and content of ``__all__``; position counts statements."""
    for position, node in enumerate(tree.body):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return position, list(ast.literal_eval(node.value))
    return None


def export_differences(tree: ast.Module) -> Iterator[str]:
    """Compare ``__all__`` with the public names that the module defines, both ways."""
    defined = list(_defined_names(tree))
    public = {name for name in defined if not name.startswith("_")}
    exports = _exports(tree)
    if exports is None:
        if public:
            yield f"no __all__, but it defines {', '.join(sorted(public))}"
        return
    position, names = exports
    if position != 1 or ast.get_docstring(tree) is None:
        yield "__all__ does not follow the module's docstring"
    if len(names) != len(set(names)):
        yield "__all__ names something twice"
    imported = {local for _, local, _ in _imports(tree)}
    yield from (f"{name} is not in __all__" for name in sorted(public - set(names)))
    absent = sorted(set(names) - set(defined) - imported)
    yield from (f"{name} is in __all__ but not there" for name in absent)


def _breaches(rule: Rule, exempt: Sequence[str] = ()) -> str:
    return "\n".join(
        f"{name}:{breach}"
        for path in MODULES
        for name in [path.relative_to(ROOT).as_posix()]
        if not any(name == e or (e.endswith("/") and name.startswith(e)) for e in exempt)
        for breach in rule(ast.parse(path.read_text(encoding="utf-8")))
    )


def _is_private(path: Path) -> bool:
    return path.name.startswith("_") and path.name != "__init__.py"


def test_file_system_effects_outside_fsops_are_absent() -> None:
    """Only cas.fsops renames, links, unlinks, syncs, locks and mounts."""
    breaches = _breaches(file_system_effects, exempt=["cas/fsops/"])
    assert not breaches, breaches


def test_system_calls_outside_fsops_and_confinement_are_absent() -> None:
    """Only they make system calls that Python does not offer."""
    breaches = _breaches(system_call_imports, exempt=MAKERS_OF_SYSTEM_CALLS)
    assert not breaches, breaches


def test_rpc_imports_outside_adapters_are_absent() -> None:
    """Only adapters, and the parser of EVE's configuration, know gRPC and the generated stubs."""
    parsers = ["cas/upgrade/checkpoint.py", "cas/upgrade/message_parts.py"]
    google = "cas/datastores/google_account.py"
    breaches = _breaches(rpc_imports, exempt=["cas/containerd/", "cas/rpc/", google, *parsers])
    assert not breaches, breaches


def test_ambient_reads_below_app_are_absent() -> None:
    """Environment, arguments, working directory and time come in from above."""
    exempt = ["cas/cli/", "cas/app/", "cas/daemon/"]
    breaches = _breaches(ambient_reads, exempt=exempt)
    assert not breaches, breaches


def test_exports_of_public_modules_equal_their_public_names() -> None:
    """What a public module defines without an underscore is in __all__, and nothing else is."""
    private = [path.relative_to(ROOT).as_posix() for path in MODULES if _is_private(path)]
    breaches = _breaches(export_differences, exempt=private)
    assert not breaches, breaches


def test_modules_of_the_package_are_found() -> None:
    """The rules above look at the package, not at an empty list."""
    names = {path.relative_to(ROOT).as_posix() for path in MODULES}
    assert {"cas/__init__.py", "cas/errors/base.py", "cas/model/digest.py"} <= names
    assert not any(name.startswith("cas/_gen/") for name in names)


@pytest.mark.parametrize(
    ("rule", "source", "breach"),
    [
        (file_system_effects, "import os\nos.rename(a, b)", "2: os.rename"),
        (file_system_effects, "import os as o\no.fsync(f)", "2: os.fsync"),
        (file_system_effects, "from os import unlink as u\nu(a)", "2: os.unlink"),
        (file_system_effects, "import os\nf = os.remove", "2: os.remove"),
        (file_system_effects, "from shutil import rmtree\nrmtree(a)", "2: shutil.rmtree"),
        (file_system_effects, "path.rename(other)", "1: .rename()"),
        (file_system_effects, "path.unlink(missing_ok=True)", "1: .unlink()"),
        (file_system_effects, "Path(a).replace(b)", "1: .replace()"),
        (system_call_imports, "import ctypes.util", "1: import ctypes.util"),
        (system_call_imports, "def f():\n    import ctypes", "2: import ctypes"),
        (file_system_effects, "run(['umount', p])", "1: ['umount', p]"),
        (rpc_imports, "import grpc", "1: import grpc"),
        (rpc_imports, "from grpc import aio", "1: import grpc.aio"),
        (rpc_imports, "from cas import _gen", "1: import cas._gen"),
        (rpc_imports, "from google.protobuf import any_pb2", "1: import google.protobuf.any_pb2"),
        (ambient_reads, "import os\nos.environ['A']", "2: os.environ"),
        (
            ambient_reads,
            "from datetime import datetime\ndatetime.now(z)",
            "2: datetime.datetime.now",
        ),
        (ambient_reads, "import time\ntime.time()", "2: time.time"),
        (ambient_reads, "from pathlib import Path\nPath.cwd()", "2: pathlib.Path.cwd"),
        (export_differences, "'''D.'''\n__all__ = []\nA = 1", "A is not in __all__"),
        (export_differences, "'''D.'''\n__all__ = ['A']", "A is in __all__ but not there"),
        (
            export_differences,
            "'''D.'''\n__all__ = []\nimport click\n@click.command()\ndef f(): ...",
            "f is not in __all__",
        ),
        (export_differences, "def f(): ...", "no __all__, but it defines f"),
        (
            export_differences,
            "'''D.'''\nimport os\n__all__ = []",
            "__all__ does not follow the module's docstring",
        ),
        (
            export_differences,
            "'''D.'''\n__all__ = ['A', 'A']\nA = 1",
            "__all__ names something twice",
        ),
    ],
)
def test_rule_on_a_sample_that_breaks_it_names_line_and_thing(
    rule: Rule, source: str, breach: str
) -> None:
    """Each rule can fail, and says where."""
    assert breach in list(rule(ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (file_system_effects, "text.replace('a', 'b')"),
        (file_system_effects, "from dataclasses import replace\nreplace(value, size=1)"),
        (file_system_effects, "moment.replace(tzinfo=None)"),
        (file_system_effects, "items.remove(a)"),
        (file_system_effects, "import os\nos.open(a, os.O_RDONLY)"),
        (rpc_imports, "from cas.containerd import client\nimport grpcish"),
        (ambient_reads, "import time\ntime.monotonic()"),
        (export_differences, "'''D.'''\n__all__ = ['A', 'b']\nfrom x import b\nA = 1\n_c = 2"),
        (
            export_differences,
            "'''D.'''\n__all__ = ['g']\nfrom x import g\n@g.command()\ndef ls(): ...",
        ),
        (export_differences, "'''D.'''\nimport os\n_private = os.sep"),
    ],
)
def test_rule_on_an_innocent_sample_stays_silent(rule: Rule, source: str) -> None:
    """The rules do not mistake strings, values and allowed calls for what they ban."""
    assert list(rule(ast.parse(source))) == []


def test_every_directory_of_tests_belongs_to_a_stage() -> None:
    """A folder that no stage of hack/test names would never run."""
    stages = (ROOT / "hack/test").read_text(encoding="utf-8").split()
    tests = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    names = {str(path.relative_to(ROOT)) for path in tests}
    forgotten = [
        name
        for name in sorted(names)
        if not any(
            name == stage or name.startswith(f"{stage}/")
            for stage in stages
            if stage.startswith("tests/")
        )
    ]
    assert forgotten == ["tests/integration"], "its files are named one by one"
    files = {path.name for path in (ROOT / "tests/integration").glob("test_*.py")}
    named = {Path(stage) for stage in stages if stage.endswith(".py")}
    assert files == {path.name for path in named if path.parent == Path("tests/integration")}
