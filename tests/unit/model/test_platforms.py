"""Platforms: normal form, preference, choice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import InvalidNameError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.media_types import OCI_MANIFEST
from cas.model.platforms import (
    host_platform,
    is_attestation,
    matches,
    normalise,
    order_by_preference,
    parse_platform,
    preferences,
)


def entry(platform: str | None, **annotations: str) -> Descriptor:
    """An index entry; its digest is made from the platform."""
    parsed = None if platform is None else Platform(*platform.split("/"))
    digest = Digest.of(repr((platform, annotations)).encode())
    return Descriptor(OCI_MANIFEST, digest, 1, parsed, annotations)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("linux", "x86_64", ""), "linux/amd64"),
        (("Linux", "AMD64", "v1"), "linux/amd64"),
        (("linux", "amd64", "v3"), "linux/amd64/v3"),
        (("linux", "aarch64", ""), "linux/arm64"),
        (("linux", "arm64", "v8"), "linux/arm64"),
        (("linux", "arm64", "8"), "linux/arm64"),
        (("linux", "arm64", "v8.0"), "linux/arm64"),
        (("linux", "arm", ""), "linux/arm/v7"),
        (("linux", "arm", "6"), "linux/arm/v6"),
        (("linux", "armhf", ""), "linux/arm/v7"),
        (("linux", "armel", ""), "linux/arm/v6"),
        (("linux", "i386", ""), "linux/386"),
        (("linux", "riscv64", ""), "linux/riscv64"),
        (("macos", "arm64", ""), "darwin/arm64"),
    ],
)
def test_normalise_alias_gives_canonical_platform(
    given: tuple[str, str, str], expected: str
) -> None:
    """Aliases and default variants have one form."""
    assert str(normalise(*given)) == expected


@given(
    st.sampled_from(["linux", "windows"]),
    st.sampled_from(["amd64", "x86_64", "arm", "armhf", "arm64", "aarch64", "i386", "s390x"]),
    st.sampled_from(["", "v1", "v6", "7", "v8", "v8.0"]),
)
def test_normalise_applied_twice_changes_nothing(os: str, architecture: str, variant: str) -> None:
    """Normal form is a fixed point."""
    once = normalise(os, architecture, variant)
    assert normalise(once.os, once.architecture, once.variant) == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/arm64", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("arm64", "linux/arm64"),
        ("x86_64", "linux/amd64"),
    ],
)
def test_parse_platform_valid_text_gives_platform(text: str, expected: str) -> None:
    """Full form and an architecture alone are taken."""
    assert str(parse_platform(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "a/b/c/d", "linux/am d64", "linux/ä", "x" * 65]
)
def test_parse_platform_malformed_text_is_refused(text: str) -> None:
    """Everything else is a usage error."""
    with pytest.raises(InvalidNameError):
        parse_platform(text)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("riscv64", "linux/riscv64"),
    ],
)
def test_host_platform_of_kernel_name_is_normalised(machine: str, expected: str) -> None:
    """The kernel's word for the hardware becomes a platform."""
    assert str(host_platform(machine)) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("linux/amd64", ["linux/amd64", "linux/386"]),
        (
            "linux/amd64/v3",
            ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"],
        ),
        (
            "linux/arm64",
            ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"],
        ),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v5", ["linux/arm/v5"]),
        ("linux/s390x", ["linux/s390x"]),
    ],
)
def test_preferences_of_platform_are_those_of_containerd(wanted: str, expected: list[str]) -> None:
    """A machine also runs the smaller members of its family, best first."""
    assert [str(platform) for platform in preferences(Platform(*wanted.split("/")))] == expected


def test_preferences_of_newer_arm64_include_plain_arm64() -> None:
    """A variant that the list does not know still runs what every arm64 runs."""
    assert Platform("linux", "arm64") in preferences(Platform("linux", "arm64", "v9"))


def test_matches_other_system_is_refused() -> None:
    """The operating system counts."""
    assert matches(Platform("linux", "386"), Platform("linux", "amd64"))
    assert not matches(Platform("windows", "amd64"), Platform("linux", "amd64"))


def test_order_by_preference_puts_best_first_and_unnamed_last() -> None:
    """Best match first, entries without platform last, foreign and attestations never."""
    entries = [
        entry(None),
        entry("linux/386"),
        entry("linux/arm64"),
        entry("unknown/unknown"),
        entry("linux/amd64", number="first"),
        entry("linux/amd64", number="second"),
    ]
    ordered = order_by_preference(entries, Platform("linux", "amd64"))
    assert ordered == [entries[4], entries[5], entries[1], entries[0]]


def test_is_attestation_by_annotation_without_platform() -> None:
    """The annotation is enough."""
    annotated = entry(None, **{"vnd.docker.reference.type": "attestation-manifest"})
    assert is_attestation(annotated)
    assert order_by_preference([annotated], Platform("linux", "amd64")) == []
