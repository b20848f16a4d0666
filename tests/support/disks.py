"""Disk images for tests: real ones by qemu-img, and hostile ones by changing their bytes."""

__all__ = [
    "DISK_LAYER",
    "add_disk",
    "change_disk",
    "changed",
    "content_of",
    "disk_layout",
    "iso_image",
    "qemu_image",
    "qemu_image_with_snapshots",
    "virtual_size",
]

import json
import os
import struct
import subprocess
import uuid
from pathlib import Path

from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.media_types import OCI_CONFIG, OCI_MANIFEST
from tests.support.volumes import Store

DISK_LAYER = "application/vnd.lfedge.disk.layer.v1"
MIB = 1024 * 1024
_CLUSTER_BYTES = 64 * 1024


def qemu_image(path: Path, disk_format: str, *options: str, content: bytes = b"") -> bytes:
    """Make an image of a disk of 4 MiB that begins with ``content``; gives the file's bytes."""
    raw = path.with_suffix(".source")
    with raw.open("wb") as file:
        file.write(content)
        file.truncate(4 * MIB)
    if disk_format == "vhdx":
        options = (*options, "-o", "block_size=1M")
    command = ["qemu-img", "convert", "-f", "raw", "-O", disk_format, *options, str(raw), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_bytes()


def qemu_image_with_snapshots(path: Path, count: int) -> bytes:
    """Make a blank qcow2 of 1 MiB with so many snapshots of nothing inside, which qemu-img checks.

    Written by hand, since qemu-img takes a second for twenty.
    """
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    entries = (
        struct.pack(">QIHHIIQIIQQQ", 0, 0, 8, 8, 0, 0, 0, 0, 24, 0, MIB, 0) + b"%08d" % number * 2
        for number in range(count)
    )
    with path.open("r+b") as file:
        table = -(-file.seek(0, os.SEEK_END) // _CLUSTER_BYTES) * _CLUSTER_BYTES
        file.seek(table)
        file.write(b"".join(entries))
        file.truncate(-(-file.tell() // _CLUSTER_BYTES) * _CLUSTER_BYTES)
        file.seek(60)
        file.write(struct.pack(">IQ", count, table))
    # It counts the clusters of the table.
    subprocess.run(["qemu-img", "check", "-r", "all", path], check=True, capture_output=True)
    return path.read_bytes()


def iso_image(size: int = MIB) -> bytes:
    """What begins as an ISO 9660 does, which is all that anybody looks at."""
    return bytes(32768) + b"\x01CD001\x01\0" + bytes(size - 32776)


def changed(image: bytes, offset: int, data: bytes) -> bytes:
    """The image with other bytes at one place."""
    return image[:offset] + data + image[offset + len(data) :]


def virtual_size(path: Path, disk_format: str) -> int:
    """What qemu-img says of the disk in a file."""
    command = ["qemu-img", "info", "--output=json", "-f", disk_format, str(path)]
    done = subprocess.run(command, check=True, capture_output=True)
    return int(json.loads(done.stdout)["virtual-size"])


def content_of(path: Path, disk_format: str, scratch: Path) -> bytes:
    """The disk in a file, as bytes."""
    raw = scratch / f"{uuid.uuid4()}.raw"
    command = ["qemu-img", "convert", "-f", disk_format, "-O", "raw", str(path), str(raw)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


def disk_layout(
    directory: Path,
    *layers: tuple[str, bytes, dict[str, str]],
    config_type: str = OCI_CONFIG,
    labels: dict[str, str] | None = None,
) -> Path:
    """Write an OCI layout with one manifest; of each layer media type, bytes and annotations."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(media_type: str, data: bytes, annotations: dict[str, str]) -> dict[str, object]:
        (blobs / Digest.of(data).hex).write_bytes(data)
        described = {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}
        return {**described, "annotations": annotations} if annotations else described

    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(
            config_type, json.dumps({**config, "config": {"Labels": labels or {}}}).encode(), {}
        ),
        "layers": [put(*layer) for layer in layers],
    }
    root = put(OCI_MANIFEST, json.dumps(manifest).encode(), {})
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory


def change_disk(path: Path, disk_format: str, pattern: int, *, size: int = 1024 * 1024) -> None:
    """Let a machine fill the first bytes of a disk with one byte, durably."""
    commands = ("-c", f"write -P {pattern} 0 {size}", "-c", "flush")
    command = ["qemu-io", "-f", disk_format, *commands, str(path)]
    subprocess.run(command, check=True, capture_output=True)


def add_disk(
    store: Store,
    *layers: bytes,
    media_type: str = f"{DISK_LAYER}+raw",
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> str:
    """Put an image with these layers into the store and give its reference."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Labels": labels or {}}}
    )
    blobs = [config.encode(), *layers]
    media_types = [OCI_CONFIG, *[media_type] * len(layers)]
    described = [
        {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}
        for kind, data in zip(media_types, blobs, strict=True)
    ]
    for layer in described[1:]:
        layer["annotations"] = annotations or {}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
    ).encode()
    references = {
        f"containerd.io/gc.ref.content.{number}": str(Digest.of(data))
        for number, data in enumerate(blobs)
    }
    with store.leasing.hold("test") as lease:
        for data in blobs:
            store.backing.content.put(f"t-{Digest.of(data)}", lease.id, data, Digest.of(data), {})
        target = Descriptor(OCI_MANIFEST, Digest.of(manifest), len(manifest))
        store.backing.content.put(
            f"t-{target.digest}", lease.id, manifest, target.digest, references
        )
        reference = f"test/{uuid.uuid4()}:latest"
        store.backing.images.create(reference, target, {})
    return reference
