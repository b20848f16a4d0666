"""Real images for tests, built in memory without the code under test: same input, same bytes.

``build_image`` makes an image of one platform, ``build_index`` puts several under an index (also
nested), ``attestation`` adds what buildkit adds. Each knows all its blobs and writes itself as an
OCI layout directory, an OCI tar or a docker archive. ``busybox_image`` packs a root file system
in which programs run.
"""

__all__ = [
    "BuiltImage",
    "Compression",
    "attestation",
    "build_image",
    "build_index",
    "busybox_image",
    "busybox_layers",
    "descriptor",
    "docker_archive_documents",
    "layered_image",
    "write_tar",
]

import hashlib
import io
import json
import platform as machine_platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support.layers import (
    BuiltLayer,
    Compression,
    Entry,
    build_layer,
    character_device,
    compress,
    directory,
    file,
    hard_link,
    opaque,
    symlink,
    whiteout,
)

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

_CREATED = "2026-01-02T03:04:05Z"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "riscv64": "riscv64"}

Json = dict[str, Any]

_FOREIGN = {
    "layer.v1.tar": "layer.nondistributable.v1.tar",
    "rootfs.diff.tar": "rootfs.foreign.diff.tar",
}


def host_platform() -> str:
    """This machine as ``os/architecture[/variant]``."""
    machine = machine_platform.machine()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


def encode(document: object) -> bytes:
    """Serialise as the field's tools do: compact, insertion order."""
    return json.dumps(document, separators=(",", ":")).encode()


def digest_of(data: bytes) -> str:
    """``sha256:<hex>`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(media_type: str, data: bytes, **more: object) -> Json:
    """The descriptor of ``data`` as JSON value."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


@dataclass(frozen=True)
class BuiltImage:
    """An image or an index, complete: ``root`` describes it, ``blobs`` holds it.

    Attributes:
        root: Descriptor of the manifest or index, as JSON value.
        blobs: Digest to bytes, children before parents.
        name: Reference that archives give it.
        layers: Of a single image, bottom first; of an index those of all its images.
        config: Of a single image, its config's bytes; empty for an index.
    """

    root: Json
    blobs: dict[str, bytes]
    name: str = "example.com/test/image:1.0"
    layers: tuple[BuiltLayer, ...] = ()
    config: bytes = b""

    @property
    def digest(self) -> str:
        """Of the manifest or index."""
        return str(self.root["digest"])

    @property
    def manifest(self) -> bytes:
        """Bytes of the manifest or index."""
        return self.blobs[self.digest]

    @property
    def config_digest(self) -> str:
        """Of the config of a single image."""
        return digest_of(self.config)

    @property
    def diff_ids(self) -> list[str]:
        """Of the layers, bottom first."""
        return [layer.diff_id for layer in self.layers]

    @property
    def chain_ids(self) -> list[str]:
        """Of the layers, bottom first."""
        chain: list[str] = []
        for diff_id in self.diff_ids:
            chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
        return chain

    def named(self, name: str) -> "BuiltImage":
        """The same image under another reference."""
        return replace(self, name=name)

    def without(self, *digests: str) -> "BuiltImage":
        """The same image with blobs missing."""
        kept = {digest: data for digest, data in self.blobs.items() if digest not in digests}
        return replace(self, blobs=kept)

    def with_foreign_layer(self, number: int, urls: Sequence[str]) -> "BuiltImage":
        """The same single image, one layer of which only its owner gives out."""
        manifest = json.loads(self.manifest)
        layer = manifest["layers"][number]
        for ours, foreign in _FOREIGN.items():
            layer["mediaType"] = layer["mediaType"].replace(ours, foreign)
        layer["urls"] = list(urls)
        raw = encode(manifest)
        blobs = self.without(self.digest).blobs | {digest_of(raw): raw}
        return replace(self, root=descriptor(str(self.root["mediaType"]), raw), blobs=blobs)

    def index_document(self, annotations: Mapping[str, str] | None = None) -> Json:
        """What ``index.json`` says."""
        if annotations is None:
            annotations = {
                "io.containerd.image.name": self.name,
                "org.opencontainers.image.ref.name": self.name.rpartition(":")[2],
            }
        root = {**self.root, "annotations": dict(annotations)} if annotations else self.root
        return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [root]}

    def oci_members(self, annotations: Mapping[str, str] | None = None) -> dict[str, bytes]:
        """Paths and bytes of the OCI layout; ``annotations={}`` leaves it nameless."""
        members = {"oci-layout": encode({"imageLayoutVersion": "1.0.0"})}
        for digest, data in self.blobs.items():
            members[f"blobs/sha256/{digest.removeprefix('sha256:')}"] = data
        members["index.json"] = encode(self.index_document(annotations))
        return members

    def write_oci_layout(self, target: Path, annotations: Mapping[str, str] | None = None) -> Path:
        """Write as an OCI layout directory."""
        for name, data in self.oci_members(annotations).items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return target

    def write_oci_tar(
        self,
        path: Path,
        *,
        compression: Compression = Compression.NONE,
        documents_first: bool = True,
        annotations: Mapping[str, str] | None = None,
    ) -> Path:
        """Write as an OCI tar; ``documents_first=False`` puts ``index.json`` at the end."""
        members = list(self.oci_members(annotations).items())
        if documents_first:
            members.insert(1, members.pop())
        return write_tar(path, dict(members), compression=compression)

    def write_docker_archive(
        self,
        path: Path,
        *,
        tags: Sequence[str] | None = None,
        compression: Compression = Compression.NONE,
        compressed_layers: bool = False,
    ) -> Path:
        """Write as ``docker save`` did before it knew OCI; layers plain unless asked."""
        members = docker_archive_documents([self], tags=tags, compressed_layers=compressed_layers)
        return write_tar(path, members, compression=compression)


def docker_archive_documents(
    images: Sequence[BuiltImage],
    *,
    tags: Sequence[str] | None = None,
    compressed_layers: bool = False,
) -> dict[str, bytes]:
    """Paths and bytes of a docker archive of several single images."""
    members: dict[str, bytes] = {}
    entries: list[Json] = []
    for image in images:
        names = []
        for layer in image.layers:
            names.append(f"{layer.diff_id.removeprefix('sha256:')}/layer.tar")
            members[names[-1]] = layer.blob if compressed_layers else layer.tar
        config = f"{image.config_digest.removeprefix('sha256:')}.json"
        members[config] = image.config
        repo_tags = [image.name] if tags is None else list(tags)
        entries.append({"Config": config, "RepoTags": repo_tags, "Layers": names})
    members["manifest.json"] = encode(entries)
    return members


def write_tar(
    path: Path,
    members: Mapping[str, bytes],
    *,
    links: Mapping[str, str] | None = None,
    compression: Compression = Compression.NONE,
) -> Path:
    """Write a tar of ``members`` and then of symbolic ``links``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    path.write_bytes(compress(buffer.getvalue(), compression))
    return path


@dataclass(frozen=True)
class _MediaTypes:
    manifest: str = OCI_MANIFEST
    index: str = OCI_INDEX
    config: str = OCI_CONFIG
    layer: str = OCI_LAYER
    suffixes: Mapping[Compression, str] = field(
        default_factory=lambda: {
            Compression.NONE: "",
            Compression.GZIP: "+gzip",
            Compression.ZSTD: "+zstd",
        }
    )

    def of_layer(self, compression: Compression) -> str:
        return self.layer + self.suffixes[compression]


_OCI = _MediaTypes()
_DOCKER = _MediaTypes(
    DOCKER_MANIFEST,
    DOCKER_LIST,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    {Compression.NONE: "", Compression.GZIP: ".gzip", Compression.ZSTD: ".zstd"},
)


def platform_document(platform: str) -> Json:
    """``linux/arm/v7`` as JSON value."""
    system, architecture, *variant = platform.split("/")
    return {
        "architecture": architecture,
        "os": system,
        **({"variant": variant[0]} if variant else {}),
    }


def build_image(
    layers: Iterable[BuiltLayer | Sequence[Entry]] = (),
    *,
    name: str = "example.com/test/image:1.0",
    platform: str | None = None,
    compression: Compression | Sequence[Compression] = Compression.GZIP,
    docker: bool = False,
    config: Mapping[str, object] | None = None,
    diff_ids: Sequence[str] | None = None,
    root_platform: bool = False,
) -> BuiltImage:
    """Make an image of one platform.

    Args:
        layers: Bottom first; lists of entries are compressed with ``compression`` (one for all,
            or one per layer).
        name: Reference that archives give it.
        platform: ``os/architecture[/variant]``, this machine's by default.
        compression: See ``layers``.
        docker: Docker schema 2 media types instead of OCI's.
        config: What to run (``Cmd``, ``Env``, ...).
        diff_ids: Lies to put into the config.
        root_platform: Put the platform onto the root descriptor, as indexes need it.
    """
    kinds = _DOCKER if docker else _OCI
    given = list(layers)
    how = [compression] * len(given) if isinstance(compression, Compression) else compression
    built = tuple(
        layer if isinstance(layer, BuiltLayer) else build_layer(layer, how[number])
        for number, layer in enumerate(given)
    )
    platform_value = platform_document(platform or host_platform())
    config_raw = encode(
        {
            "created": _CREATED,
            **platform_value,
            "config": dict(config or {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}),
            "rootfs": {
                "type": "layers",
                "diff_ids": list(diff_ids or (layer.diff_id for layer in built)),
            },
            "history": [
                {"created": _CREATED, "created_by": f"layer {n}"} for n in range(len(built))
            ],
        }
    )
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": kinds.manifest,
            "config": descriptor(kinds.config, config_raw),
            "layers": [descriptor(kinds.of_layer(each.compression), each.blob) for each in built],
        }
    )
    blobs = {layer.digest: layer.blob for layer in built}
    blobs[digest_of(config_raw)] = config_raw
    blobs[digest_of(manifest)] = manifest
    root = descriptor(kinds.manifest, manifest)
    if root_platform:
        root["platform"] = platform_value
    return BuiltImage(root, blobs, name, built, config_raw)


def build_index(
    children: Sequence[BuiltImage],
    *,
    name: str = "example.com/test/index:1.0",
    docker: bool = False,
    platforms: bool = True,
    annotations: Mapping[str, str] | None = None,
) -> BuiltImage:
    """Put images, indexes and attestations under one index.

    Args:
        children: In this order.
        name: Reference that archives give it.
        docker: A docker manifest list instead of an OCI index.
        platforms: Name each image's platform on its entry.
        annotations: Of the index itself.
    """
    kinds = _DOCKER if docker else _OCI
    entries = []
    blobs: dict[str, bytes] = {}
    for child in children:
        entry = dict(child.root)
        if platforms and child.config and "platform" not in entry:
            config = json.loads(child.config)
            entry["platform"] = {
                key: config[key] for key in ("architecture", "os", "variant") if key in config
            }
        entries.append(entry)
        blobs |= child.blobs
    document: Json = {"schemaVersion": 2, "mediaType": kinds.index, "manifests": entries}
    if annotations:
        document["annotations"] = dict(annotations)
    raw = encode(document)
    blobs[digest_of(raw)] = raw
    layers = tuple(layer for child in children for layer in child.layers)
    return BuiltImage(descriptor(kinds.index, raw), blobs, name, layers)


def attestation(subject: BuiltImage) -> BuiltImage:
    """What buildkit puts beside an image: an unknown/unknown manifest of an in-toto document."""
    statement = encode({"_type": "https://in-toto.io/Statement/v0.1", "subject": subject.digest})
    config = encode(
        {
            "architecture": "unknown",
            "os": "unknown",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(statement)]},
        }
    )
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": [descriptor("application/vnd.in-toto+json", statement)],
        }
    )
    root = descriptor(
        OCI_MANIFEST,
        manifest,
        platform={"architecture": "unknown", "os": "unknown"},
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": subject.digest,
        },
    )
    blobs = {digest_of(data): data for data in (statement, config, manifest)}
    return BuiltImage(root, blobs)


def layered_image(
    count: int = 3,
    *,
    name: str = "example.com/test/layered:1.0",
    platform: str | None = None,
    compression: Compression = Compression.GZIP,
    seed: str = "",
) -> BuiltImage:
    """An image of ``count`` small layers; layer i holds ``layer-<i>`` and rewrites ``top``."""
    return build_image(
        [
            [
                file(f"layer-{number}", f"layer {number} {seed}\n".encode()),
                file("top", f"{number}\n".encode()),
            ]
            for number in range(count)
        ],
        name=name,
        platform=platform,
        compression=compression,
    )


_APPLETS = (
    "sh", "ls", "cat", "echo", "id", "mkdir", "rm", "stat", "sync", "touch", "true", "sleep",
)  # fmt: skip


def _static_busybox() -> bytes:
    found = shutil.which("busybox")
    if found is None:
        message = "busybox is not installed; install the package busybox-static"
        raise RuntimeError(message)
    headers = subprocess.run(
        [found, "--list"], env={}, capture_output=True, check=True, text=True
    ).stdout
    raw = Path(found).read_bytes()
    if "sh" not in headers.split() or b"/ld-linux" in raw[:4096]:
        message = f"{found} is not a static busybox with a shell; install busybox-static"
        raise RuntimeError(message)
    return raw


def busybox_layers() -> list[list[Entry]]:
    """Entries of a runnable root file system in three layers.

    The second layer deletes ``etc/obsolete`` and hides the old ``opt/app``; the third lies below
    directories that it only implies (``tmp`` with mode 1777, ``root/private`` with mode 0700).
    """
    base = [
        directory("bin"),
        file("bin/busybox", _static_busybox(), mode=0o755),
        *(symlink(f"bin/{applet}", "busybox") for applet in _APPLETS),
        directory("dev"),
        character_device("dev/null", 1, 3),
        directory("etc"),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/opt/app:/bin/sh\n"),
        file("etc/obsolete", b"removed by the second layer\n"),
        directory("opt"),
        directory("opt/app"),
        file("opt/app/old", b"hidden by the second layer\n"),
        directory("proc"),
        directory("root", mode=0o700),
        directory("root/private", mode=0o700),
        directory("tmp", mode=0o1777),
    ]
    second = [
        whiteout("etc/obsolete"),
        directory("opt/app", uid=1000, gid=1000),
        opaque("opt/app"),
        file("opt/app/new", b"hello from the image\n", uid=1000, gid=1000),
        hard_link("opt/app/new-too", "opt/app/new"),
    ]
    third = [
        file("tmp/implied", b"below an implied directory\n"),
        file("root/private/implied", b"below an implied directory\n"),
        file("etc/with-xattr", b"", xattrs={"user.test": "value"}),
    ]
    return [base, second, third]


def busybox_image(
    *,
    name: str = "example.com/test/busybox:1.0",
    compression: Sequence[Compression] = (
        Compression.GZIP,
        Compression.ZSTD,
        Compression.NONE,
    ),
) -> BuiltImage:
    """A root file system that runs on this machine, in a gzip, a zstd and a plain layer."""
    return build_image(busybox_layers(), name=name, compression=compression)
