"""The tar reader: what tarfile writes is read, what is broken or hostile is refused."""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import IntegrityError, LimitExceededError, MalformedArchiveError
from cas.model.limits import Limits
from cas.store.image.archives.archive import clean_name, read_exactly
from cas.store.image.archives.tar_reader import MemberKind, TarMember, TarReader, looks_like_tar

LIMITS = Limits()
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def member(name: str, **fields: object) -> tarfile.TarInfo:
    """A header."""
    result = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(result, key, value)
    return result


def tar_of(
    members: Iterable[tuple[tarfile.TarInfo, bytes]], tar_format: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar as the standard library writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for header, data in members:
            if header.isreg():
                header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def read(raw: bytes, limits: Limits = LIMITS) -> list[tuple[TarMember, bytes]]:
    """All members with their contents."""
    reader = TarReader(io.BytesIO(raw), "test.tar", limits)
    return [(each, read_exactly(reader, each.size)) for each in reader]


def names(raw: bytes) -> list[str]:
    """Names of all members, contents skipped."""
    return [each.name for each in TarReader(io.BytesIO(raw), "test.tar", LIMITS)]


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 100_000])
def test_read_members_of_each_format_gives_their_content(tar_format: int, size: int) -> None:
    """Names and contents come back from every format that is written today."""
    data = bytes(range(256)) * (size // 256 + 1)
    raw = tar_of([(member("a"), data[:size]), (member("dir/b"), b"second")], tar_format)
    assert [(each.name, data) for each, data in read(raw)] == [
        ("a", data[:size]),
        ("dir/b", b"second"),
    ]


@pytest.mark.parametrize("tar_format", FORMATS.values(), ids=FORMATS)
def test_read_offset_points_to_the_content(tar_format: int) -> None:
    """The offset of a member is where its bytes are in the tar."""
    raw = tar_of([(member("x" * 90), b"one"), (member("b"), b"two")], tar_format)
    for each, data in read(raw):
        assert raw[each.offset : each.offset + each.size] == data


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_read_long_names_and_links_come_whole(tar_format: int) -> None:
    """Names beyond 100 bytes, in any script, are read from extended headers."""
    long_name, long_target = "ä/" * 200 + "file", "t/" * 200 + "target"
    raw = tar_of(
        [
            (member(long_name), b"x"),
            (member("link", type=tarfile.SYMTYPE, linkname=long_target), b""),
        ],
        tar_format,
    )
    first, second = (each for each, _ in read(raw))
    assert first.name == long_name
    assert (second.kind, second.target) == (MemberKind.LINK, long_target)


def test_read_ustar_prefix_is_part_of_the_name() -> None:
    """Names of up to 256 bytes are split in ustar."""
    name = "d" * 90 + "/" + "e" * 90 + "/f"
    assert names(tar_of([(member(name), b"")], tarfile.USTAR_FORMAT)) == [name]


def test_read_size_in_base_256_is_understood() -> None:
    """GNU writes sizes of 8 GiB and more in binary."""
    header = member("big", size=9 * 1024**3).tobuf(tarfile.GNU_FORMAT)
    stream = io.BytesIO(header)
    reader = TarReader(stream, "test.tar", LIMITS, skip=lambda amount: stream.seek(amount, 1))
    assert [each.size for each in reader] == [9 * 1024**3]


def test_read_size_of_pax_header_counts() -> None:
    """A size in the extended header replaces the one in octal."""
    header = member("big", size=9 * 1024**3).tobuf(tarfile.PAX_FORMAT)
    stream = io.BytesIO(header)
    reader = TarReader(stream, "test.tar", LIMITS, skip=lambda amount: stream.seek(amount, 1))
    assert [each.size for each in reader] == [9 * 1024**3]


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("a/b/link", "../c", "a/c"),
        ("a/link", "/c", "c"),
        ("link", "c", "c"),
        ("a/link", "../../../etc/passwd", "etc/passwd"),
    ],
)
def test_read_symlink_target_is_resolved_inside(name: str, target: str, expected: str) -> None:
    """Symbolic links are relative to their directory and cannot leave the archive."""
    raw = tar_of([(member(name, type=tarfile.SYMTYPE, linkname=target), b"")])
    assert [each.target for each, _ in read(raw)] == [expected]


def test_read_hard_link_target_is_relative_to_the_root() -> None:
    """Hard links name members."""
    raw = tar_of([(member("a/link", type=tarfile.LNKTYPE, linkname="b/./c"), b"")])
    assert [each.target for each, _ in read(raw)] == ["b/c"]


def test_read_directories_and_devices_are_neither_files_nor_links() -> None:
    """What an image archive has no use for is passed over."""
    kinds = (tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    raw = tar_of([(member(f"m{number}", type=kind), b"") for number, kind in enumerate(kinds)])
    assert {each.kind for each, _ in read(raw)} == {MemberKind.OTHER}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./a", "a"),
        ("/a", "a"),
        ("//a//b/", "a/b"),
        ("../../a", "a"),
        ("a/../b", "b"),
        (".", ""),
        ("", ""),
        ("a/./b", "a/b"),
    ],
)
def test_clean_name_has_no_detours(name: str, expected: str) -> None:
    """However a name is written, it means one place inside."""
    assert clean_name(name) == expected


@given(st.text(max_size=40))
def test_clean_name_never_leads_out(name: str) -> None:
    """No name keeps a step upwards or a root."""
    parts = clean_name(name).split("/")
    assert ".." not in parts
    assert parts == [""] or "" not in parts


def test_read_truncated_anywhere_is_noticed() -> None:
    """A tar that is cut in a member is never taken for a whole one."""
    raw = tar_of([(member("a"), b"x" * 1000), (member("é" * 80), b"y" * 700)])
    end = len(raw.rstrip(b"\0")) + 1
    for length in range(1, end, 73):
        if length % 512:
            with pytest.raises(MalformedArchiveError, match="truncated"):
                names(raw[:length])


@pytest.mark.parametrize("length", [100, 512 + 10, 512 + 1000])
def test_read_truncated_member_names_the_archive(length: int) -> None:
    """The error says what and where."""
    raw = tar_of([(member("a"), b"x" * 1000)])
    with pytest.raises(MalformedArchiveError, match=r"test\.tar is truncated"):
        read(raw[:length])


def test_read_without_end_mark_is_accepted() -> None:
    """Some writers leave the end mark out; completeness is shown by the content."""
    raw = tar_of([(member("a"), b"x" * 512)])
    assert names(raw[:1024]) == ["a"]


def test_read_something_else_is_no_tar() -> None:
    """Bytes without a tar header are refused at once."""
    with pytest.raises(MalformedArchiveError, match="no tar"):
        read(b"\x7fELF" + bytes(2000))


def test_read_garbage_between_members_is_refused() -> None:
    """A header that is none ends the reading with an error."""
    raw = tar_of([(member("a"), b"x" * 512)])
    with pytest.raises(MalformedArchiveError, match="no tar header"):
        read(raw[:1024] + b"g" * 1024)


def test_read_too_many_members_is_refused() -> None:
    """Their number is limited; extended headers count too."""
    raw = tar_of([(member(f"m{number}"), b"") for number in range(5)])
    with pytest.raises(LimitExceededError):
        read(raw, replace(LIMITS, archive_members=4))


def test_read_member_above_the_limit_of_a_blob_is_refused() -> None:
    """A member cannot be larger than a blob may be."""
    raw = tar_of([(member("a"), b"x" * 100)])
    with pytest.raises(LimitExceededError):
        read(raw, replace(LIMITS, blob_bytes=99))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_read_huge_extended_header_is_refused_unread(kind: bytes) -> None:
    """A header that claims gigabytes of name is refused before anything is read."""
    header = member("x", type=kind, size=4 * 1024**3).tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(LimitExceededError):
        read(header)


@pytest.mark.parametrize(
    "records",
    [
        b"garbage without length",
        b"99999999 path=a\n",
        b"12 path",
        b"0 path=a\n",
        b"3 path=a\n",
        b"10 size=-1\n",
        b"11 size=1.5\n",
        b"29 size=99999999999999999999\n",
    ],
)
def test_read_malformed_extended_header_is_refused(records: bytes) -> None:
    """Records that do not add up are an error and not an endless loop."""
    header = member("x", type=tarfile.XHDTYPE, size=len(records)).tobuf(tarfile.USTAR_FORMAT)
    raw = header + records.ljust(512, b"\0") + tar_of([(member("a"), b"")])
    with pytest.raises(MalformedArchiveError):
        read(raw)


def test_read_empty_pax_value_takes_the_plain_header() -> None:
    """An empty value means that there is none."""
    header = member("x", type=tarfile.XHDTYPE, size=8).tobuf(tarfile.USTAR_FORMAT)
    raw = header + b"8 path=\n".ljust(512, b"\0") + tar_of([(member("a"), b"")])
    assert names(raw) == ["a"]


def test_read_global_header_names_nobody() -> None:
    """Comments for the whole archive, as git writes them, are passed over."""
    header = member("x", type=tarfile.XGLTYPE, size=9).tobuf(tarfile.USTAR_FORMAT)
    raw = header + b"9 path=x\n".ljust(512, b"\0") + tar_of([(member("a"), b"")])
    assert names(raw) == ["a"]


def test_read_sparse_members_are_refused() -> None:
    """Both kinds of sparse members would need a map that nobody writes into images."""
    gnu = member("x", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT)
    pax = member("x", pax_headers={"GNU.sparse.major": "1"}).tobuf(tarfile.PAX_FORMAT)
    for raw in (gnu, pax):
        with pytest.raises(MalformedArchiveError, match="sparse"):
            read(raw)


def test_read_negative_or_odd_size_is_refused() -> None:
    """A size that is no number of bytes is an error."""
    header = bytearray(member("x").tobuf(tarfile.USTAR_FORMAT))
    for field in (b"\xff" * 12, b"12_3\0\0\0\0\0\0\0\0", b"zzz\0\0\0\0\0\0\0\0\0"):
        header[124:136] = field
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        with pytest.raises(MalformedArchiveError):
            read(bytes(header) + bytes(1024))


def test_looks_like_tar_tells_tars_from_the_rest() -> None:
    """Only a block with a right checksum is a tar's."""
    raw = tar_of([(member("a"), b"")])
    assert looks_like_tar(raw)
    assert not looks_like_tar(raw[:511])
    assert not looks_like_tar(bytes(512))
    assert not looks_like_tar(b"x" * 512)


@given(st.binary(max_size=1500), st.integers(0, 1400))
def test_read_damaged_tar_raises_only_integrity_errors(damage: bytes, offset: int) -> None:
    """Whatever is written over a tar, reading ends with members or an integrity error."""
    raw = bytearray(tar_of([(member("é" * 80), b"data"), (member("b"), b"x" * 600)]))
    raw[offset : offset + len(damage)] = damage
    try:
        read(bytes(raw))
    except IntegrityError:
        return
