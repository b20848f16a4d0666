"""Our declarations of containerd's API against the .proto files that Debian installs.

Both sides are compiled to descriptors. Ours may leave out fields, methods and messages; what they
declare must be the same on the wire: numbers, types, labels, enum values, request and response of
a method. What the installed version lacks must be in a table with the release that brought it.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

ROOT = Path(__file__).parents[2]
# Where Debian's golang-github-containerd-containerd-dev lands. Files of 1.x import each other by
# the whole path and the options of gogo; those of 2.x import by the path below api/.
GOCODE = Path("/usr/share/gocode/src")
DEBIAN_API = "github.com/containerd/containerd/api"
DEBIAN_PATHS = [
    GOCODE,
    *(
        GOCODE / name
        for name in (DEBIAN_API, "github.com/gogo/protobuf", "github.com/gogo/googleapis")
    ),
]

# Newer than containerd 1.6, which Debian 12 has. A server that does not know a field ignores it.
NEWER = {
    "containerd.services.diff.v1.ApplyRequest.sync_fs": "1.7.14",
    "containerd.services.images.v1.DeleteImageRequest.target": "2.0",
    "containerd.services.introspection.v1.DeprecationWarning": "1.6.27",
    "containerd.services.introspection.v1.ServerResponse.deprecations": "1.6.27",
    "containerd.services.introspection.v1.ServerResponse.pid": "1.7",
    "containerd.services.introspection.v1.ServerResponse.pidns": "1.7",
    "containerd.services.snapshots.v1.CommitSnapshotRequest.parent": "2.2",
}

# The same message under two names: a name of our own, and one that 2.0 moved.
RENAMED = {
    "containerd.services.introspection.v1.InitError": "google.rpc.Status",
    "containerd.types.Envelope": "containerd.services.events.v1.Envelope",
}

# google/rpc/status.proto, for releases whose development package depends on nothing that has it.
STATUS_PROTO = """
syntax = "proto3";
package google.rpc;
import "google/protobuf/any.proto";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
"""

Declaration = DescriptorProto | EnumDescriptorProto | FieldDescriptorProto | MethodDescriptorProto


def _compile(files: Iterable[str], includes: Sequence[str], out: Path) -> FileDescriptorSet:
    command = [sys.executable, "-m", "grpc_tools.protoc", "--include_imports"]
    subprocess.run(
        [*command, *(f"-I{path}" for path in includes), f"--descriptor_set_out={out}", *files],
        check=True,
    )
    return FileDescriptorSet.FromString(out.read_bytes())


def _message_declarations(
    scope: str, message: DescriptorProto
) -> Iterator[tuple[str, Declaration]]:
    name = f"{scope}.{message.name}"
    yield name, message
    for field in message.field:
        yield f"{name}.{field.name}", field
    for nested in message.nested_type:
        yield from _message_declarations(name, nested)
    for enum in message.enum_type:
        yield f"{name}.{enum.name}", enum


def declarations(files: Iterable[FileDescriptorProto]) -> dict[str, Declaration]:
    """Return everything that files declare by its full name."""
    found: dict[str, Declaration] = {}
    for file in files:
        for message in file.message_type:
            found.update(_message_declarations(file.package, message))
        for enum in file.enum_type:
            found[f"{file.package}.{enum.name}"] = enum
        for service in file.service:
            for method in service.method:
                found[f"{file.package}.{service.name}.{method.name}"] = method
    return found


def _canonical(name: str) -> str:
    name = name.removeprefix(".")
    for renamed, original in RENAMED.items():
        if name == renamed or name.startswith(f"{renamed}."):
            return original + name.removeprefix(renamed)
    return name


def _on_the_wire(declaration: Declaration) -> tuple[object, ...]:
    """Return what two declarations of the same name must share.

    A type's name is part of it, so that messages refer to their counterparts; presence is not.
    """
    match declaration:
        case FieldDescriptorProto(number=number, type=kind, label=label):
            return number, kind, label, _canonical(declaration.type_name)
        case MethodDescriptorProto(client_streaming=client, server_streaming=server):
            types = (_canonical(declaration.input_type), _canonical(declaration.output_type))
            return *types, client, server
        case EnumDescriptorProto():
            return tuple((value.name, value.number) for value in declaration.value)
        case _:
            return (declaration.options.map_entry,)


def _is_newer(name: str) -> bool:
    return any(name == newer or name.startswith(f"{newer}.") for newer in NEWER)


def differences(
    ours: Mapping[str, Declaration], theirs: Mapping[str, Declaration]
) -> Iterator[str]:
    """Say for each of our declarations how it differs from theirs."""
    known = {_canonical(name): declaration for name, declaration in theirs.items()}
    for name, declaration in ours.items():
        other = known.get(_canonical(name))
        if other is None:
            if not _is_newer(name):
                yield f"{name}: not in containerd"
        elif type(other) is not type(declaration):
            yield f"{name}: another kind of declaration in containerd"
        elif _on_the_wire(declaration) != _on_the_wire(other):
            yield f"{name}: {_on_the_wire(declaration)}, containerd {_on_the_wire(other)}"


@pytest.fixture(scope="module")
def our_files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    protos = ROOT / "protos"
    names = [str(path.relative_to(protos)) for path in protos.rglob("containerd/**/*.proto")]
    out = tmp_path_factory.mktemp("ours") / "set"
    compiled = _compile(names, [str(protos)], out)
    return [file for file in compiled.file if file.name in names]


@pytest.fixture(scope="module")
def containerd_declarations(
    our_files: list[FileDescriptorProto], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Declaration]:
    scratch = tmp_path_factory.mktemp("debian")
    (scratch / "google/rpc").mkdir(parents=True)
    (scratch / "google/rpc/status.proto").write_text(STATUS_PROTO)
    names = [
        f"{DEBIAN_API}/{file.name.removeprefix('containerd/')}"
        for file in our_files
        if file.service or file.name.startswith("containerd/events/")
    ]
    includes = [str(path) for path in DEBIAN_PATHS if path.is_dir()]
    compiled = _compile(names, [*includes, str(scratch)], scratch / "set")
    return declarations(compiled.file)


@pytest.fixture
def our_copy(our_files: list[FileDescriptorProto]) -> dict[str, Declaration]:
    """Declarations that a test may spoil."""
    return declarations([FileDescriptorProto.FromString(f.SerializeToString()) for f in our_files])


def test_declarations_of_ours_equal_containerds(
    our_files: list[FileDescriptorProto], containerd_declarations: dict[str, Declaration]
) -> None:
    """Every field, enum, message and method that we declare is containerd's."""
    found = "\n".join(differences(declarations(our_files), containerd_declarations))
    assert not found, found


def test_declarations_of_ours_cover_each_service_used(our_files: list[FileDescriptorProto]) -> None:
    """The comparison looks at all services, not at an empty list."""
    services = {
        service.name: {method.name for method in service.method}
        for file in our_files
        for service in file.service
    }
    assert set(services) == {
        *("Content", "Diff", "Events", "Images", "Introspection"),
        *("Leases", "Namespaces", "Snapshots", "Version"),
    }
    assert {"Write", "Read", "List", "Abort"} <= services["Content"]


def test_table_of_newer_declarations_names_only_what_we_declare(
    our_files: list[FileDescriptorProto],
) -> None:
    """An entry whose declaration went away goes away with it."""
    assert set(NEWER) <= set(declarations(our_files))


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("containerd.services.content.v1.WriteContentRequest.offset", "number", 8),
        (
            "containerd.services.content.v1.Info.size",
            "type",
            FieldDescriptorProto.TYPE_UINT64,
        ),
        (
            "containerd.services.images.v1.ListImagesRequest.filters",
            "label",
            FieldDescriptorProto.LABEL_OPTIONAL,
        ),
        (
            "containerd.services.images.v1.Image.target",
            "type_name",
            ".containerd.types.Mount",
        ),
        ("containerd.services.introspection.v1.InitError.message", "number", 4),
        ("containerd.services.snapshots.v1.Snapshots.List", "server_streaming", False),
        ("containerd.services.leases.v1.Leases.Delete", "output_type", ".google.protobuf.Any"),
    ],
)
def test_comparison_of_a_spoiled_declaration_names_it(
    our_copy: dict[str, Declaration],
    containerd_declarations: dict[str, Declaration],
    name: str,
    attribute: str,
    value: object,
) -> None:
    """One wrong number, type, label or method is found, and it alone."""
    setattr(our_copy[name], attribute, value)
    found = list(differences(our_copy, containerd_declarations))
    assert [line.partition(":")[0] for line in found] == [name]


def test_comparison_of_a_spoiled_enum_names_it(
    our_copy: dict[str, Declaration], containerd_declarations: dict[str, Declaration]
) -> None:
    """A wrong enum value is found."""
    name = "containerd.services.content.v1.WriteAction"
    enum = our_copy[name]
    assert isinstance(enum, EnumDescriptorProto)
    enum.value[2].number = 3
    found = list(differences(our_copy, containerd_declarations))
    assert [line.partition(":")[0] for line in found] == [name]


def test_comparison_of_an_unknown_field_names_it(
    our_copy: dict[str, Declaration], containerd_declarations: dict[str, Declaration]
) -> None:
    """A field that containerd does not have and the table does not list is found."""
    name = "containerd.types.Descriptor.invented"
    our_copy[name] = FieldDescriptorProto(name="invented", number=9)
    found = list(differences(our_copy, containerd_declarations))
    assert found == [f"{name}: not in containerd"]
