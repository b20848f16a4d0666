"""Disk images told by their content, real ones and hostile ones."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import CasError, DiskFormatError, DiskImageError, LimitExceededError
from cas.model.disk.format import DiskFormat
from cas.model.disk.header import DiskHeader, read_disk_header
from cas.model.limits import Limits
from tests.support.disks import MIB, changed, iso_image, qemu_image

Image = Callable[..., bytes]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Make real images, each kind once."""
    made: dict[tuple[str, ...], bytes] = {}

    def make(disk_format: str, *options: str) -> bytes:
        key = (disk_format, *options)
        if key not in made:
            path = tmp_path_factory.mktemp("disk") / "image"
            made[key] = qemu_image(path, disk_format, *options, content=b"boot")
        return made[key]

    return make


def header_of(data: bytes, claimed: DiskFormat | None = None) -> DiskHeader:
    def read_at(offset: int, size: int) -> bytes:
        assert size <= 64 * 1024, "reads are bounded"
        return data[offset : offset + size]

    return read_disk_header(read_at, len(data), Limits(), claimed=claimed)


@pytest.mark.parametrize(
    ("disk_format", "options"),
    [
        (DiskFormat.RAW, ()),
        (DiskFormat.QCOW2, ()),
        (DiskFormat.QCOW2, ("-o", "compat=0.10")),
        (DiskFormat.QCOW2, ("-o", "extended_l2=on")),
        (DiskFormat.QCOW2, ("-c", "-o", "compression_type=zstd")),
        (DiskFormat.VMDK, ()),
        (DiskFormat.VMDK, ("-o", "subformat=streamOptimized")),
        (DiskFormat.VHDX, ()),
    ],
)
def test_real_image_is_recognised_with_the_size_of_its_disk(
    image: Image, disk_format: DiskFormat, options: tuple[str, ...]
) -> None:
    """What qemu-img writes, by the content alone."""
    data = image(disk_format.value, *options)

    assert header_of(data, disk_format) == DiskHeader(disk_format, 4 * MIB)


def test_iso_is_recognised_and_has_the_size_of_the_file() -> None:
    """An ISO is not taken for raw."""
    assert header_of(iso_image()) == DiskHeader(DiskFormat.ISO, MIB)


@pytest.mark.parametrize("claimed", [DiskFormat.RAW, DiskFormat.VMDK, DiskFormat.ISO])
def test_image_of_another_format_than_claimed_is_refused(image: Image, claimed: DiskFormat) -> None:
    """A qcow2 that is handed over as something else says so."""
    with pytest.raises(DiskFormatError, match=f"said to be {claimed}.*is qcow2"):
        header_of(image("qcow2"), claimed)


@pytest.mark.parametrize(
    ("disk_format", "offset", "data", "error", "words"),
    [
        ("qcow2", 8, struct.pack(">QI", 104, 8), DiskImageError, "backing file"),
        ("qcow2", 16, struct.pack(">I", 8), DiskImageError, "backing file"),
        ("qcow2", 72, struct.pack(">Q", 4), DiskImageError, "external file"),
        ("qcow2", 72, struct.pack(">Q", 2), DiskImageError, "corrupt"),
        ("qcow2", 72, struct.pack(">Q", 1 << 40), DiskFormatError, "features"),
        ("qcow2", 4, struct.pack(">I", 1), DiskFormatError, "version 1"),
        ("qcow2", 4, struct.pack(">I", 4), DiskFormatError, "version 4"),
        ("qcow2", 20, struct.pack(">I", 63), DiskImageError, "clusters"),
        ("qcow2", 20, struct.pack(">I", 4), DiskImageError, "clusters"),
        ("qcow2", 24, struct.pack(">Q", 2**64 - 1), DiskImageError, "do not fit"),
        ("qcow2", 24, struct.pack(">Q", 0), DiskImageError, "no bytes"),
        ("qcow2", 32, struct.pack(">I", 2), DiskFormatError, "encrypted"),
        ("qcow2", 36, struct.pack(">I", 2**32 - 1), DiskImageError, "do not fit"),
        ("qcow2", 40, struct.pack(">Q", 2**63), DiskImageError, "beyond its end"),
        ("qcow2", 48, struct.pack(">Q", 2**40), DiskImageError, "beyond its end"),
        ("qcow2", 60, struct.pack(">I", 4097), DiskImageError, "4097 snapshots inside.*flatten"),
        ("vmdk", 12, struct.pack("<Q", 0), DiskImageError, "0 sectors"),
        ("vmdk", 12, struct.pack("<Q", 2**63), DiskImageError, "sectors"),
        ("vmdk", 28, struct.pack("<Q", 2**62), DiskFormatError, "type"),
        ("vmdk", 36, struct.pack("<Q", 2**40), DiskImageError, "descriptor"),
        ("vhdx", 192 * 1024, b"xxxx", DiskImageError, "regions"),
        ("raw", 0, b"# Disk DescriptorFile\n", DiskFormatError, "other files"),
        ("raw", 0, b"QED\0", DiskFormatError, "QED"),
        ("raw", 0, b"conectix", DiskFormatError, "VHD"),
        ("raw", 4 * MIB - 512, b"conectix", DiskFormatError, "VHD"),
    ],
)
def test_hostile_header_is_refused_with_the_reason(
    image: Image,
    disk_format: str,
    offset: int,
    data: bytes,
    error: type[CasError],
    words: str,
) -> None:
    """One field of a real image is another one."""
    with pytest.raises(error, match=words):
        header_of(changed(image(disk_format), offset, data))


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        (b"parentCID=ffffffff", b"parentCID=00000001", DiskImageError, "parent image"),
        (b"monolithicSparse", b"twoGbMaxExtentSp", DiskFormatError, "type"),
    ],
)
def test_vmdk_whose_descriptor_names_others_is_refused(
    image: Image, old: bytes, new: bytes, error: type[CasError], words: str
) -> None:
    """The text inside counts as much as the numbers."""
    data = image("vmdk")
    assert old in data

    with pytest.raises(error, match=words):
        header_of(data.replace(old, new))


def test_stream_optimised_vmdk_is_as_large_as_its_footer_says(image: Image) -> None:
    """Qemu takes the footer's word, so ours must be the same."""
    at_end = changed(image("vmdk"), 56, b"\xff" * 8)
    footer = changed(at_end[:512], 12, struct.pack("<Q", 16))

    found = header_of(at_end + footer + bytes(512))

    assert found.virtual_size == 16 * 512


def test_vhdx_with_a_parent_is_refused(image: Image) -> None:
    """A differencing disk is not whole."""
    data = image("vhdx")
    parameters = data.index(bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b"))
    table = data.rindex(b"metadata", 0, parameters)
    (offset,) = struct.unpack_from("<I", data, parameters + 16)

    with pytest.raises(DiskImageError, match="parent image"):
        header_of(changed(data, table + offset + 4, struct.pack("<I", 2)))


@pytest.mark.parametrize("disk_format", ["qcow2", "vmdk", "vhdx"])
@pytest.mark.parametrize("length", [4, 20, 60, 511, 60000])
def test_image_that_is_cut_off_is_refused(image: Image, disk_format: str, length: int) -> None:
    """Whoever cut it, there is no disk in it."""
    try:
        found = header_of(image(disk_format)[:length])
    except (DiskImageError, DiskFormatError):
        return
    assert length < 8, "the magic is whole"
    assert found.format is DiskFormat.RAW


def test_empty_image_is_refused() -> None:
    """Nothing is no disk."""
    with pytest.raises(DiskImageError, match="empty"):
        header_of(b"")


def test_disk_beyond_the_limit_is_refused(image: Image) -> None:
    """Whatever could hold it."""
    data = image("raw")

    with pytest.raises(LimitExceededError):
        read_disk_header(lambda at, n: data[at : at + n], len(data), Limits(disk_bytes=MIB))


@given(st.sampled_from([b"QFI\xfb", b"KDMV", b"vhdxfile", b""]), st.binary(max_size=300))
def test_any_bytes_are_a_disk_or_refused_and_nothing_else(magic: bytes, rest: bytes) -> None:
    """No input leads anywhere but to the documented errors."""
    try:
        found = header_of(magic + rest)
    except (DiskImageError, DiskFormatError, LimitExceededError):
        return
    assert found.virtual_size > 0
