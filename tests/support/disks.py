"""Disk images for tests: real ones by qemu-img, and hostile ones by changing their bytes."""

__all__ = ["changed", "iso_image", "qemu_image", "virtual_size"]

import json
import subprocess
from pathlib import Path

MIB = 1024 * 1024


def qemu_image(path: Path, disk_format: str, *options: str, content: bytes = b"") -> bytes:
    """Make an image of a disk of 4 MiB that begins with ``content``; gives the file's bytes."""
    raw = path.with_suffix(".source")
    with raw.open("wb") as file:
        file.write(content)
        file.truncate(4 * MIB)
    command = ["qemu-img", "convert", "-f", "raw", "-O", disk_format, *options, str(raw), str(path)]
    subprocess.run(command, check=True, capture_output=True)
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
