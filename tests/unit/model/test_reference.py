"""Names of images."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import InvalidNameError
from cas.model.reference import (
    ImageReference,
    check_image_name,
    is_tag,
    normalise_docker_name,
)

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("lfedge/eve:1", "docker.io/lfedge/eve:1"),
        ("index.docker.io/lfedge/eve:1", "docker.io/lfedge/eve:1"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("[::1]:5000/a:x", "[::1]:5000/a:x"),
        ("ghcr.io/a/b/c:v1_2.3-x", "ghcr.io/a/b/c:v1_2.3-x"),
        (f"ghcr.io/a@{DIGEST}", f"ghcr.io/a@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}"),
        ("a__b/c--d.e", "docker.io/a__b/c--d.e:latest"),
    ],
)
def test_normalise_docker_name_familiar_gives_canonical(text: str, expected: str) -> None:
    """Short forms are completed as docker does."""
    assert normalise_docker_name(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "a:",
        "a b",
        "Busybox",
        "ghcr.io/A",
        "Lfedge/eve",
        "a/",
        "/a",
        "a//b",
        "a:b:c",
        "a@sha256:abc",
        "a@md5:0123",
        "-a",
        "a_-_b",
        "a:" + "t" * 129,
        "ghcr.io/" + "a" * 255,
        "ä",
        "a\n",
    ],
)
def test_normalise_docker_name_outside_grammar_is_refused(text: str) -> None:
    """Names that docker would not take have no canonical form."""
    with pytest.raises(InvalidNameError):
        normalise_docker_name(text)


_COMPONENT = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True)


@given(
    st.sampled_from(["", "ghcr.io/", "localhost/", "host:5000/"]),
    st.lists(_COMPONENT, min_size=1, max_size=3),
    st.sampled_from(["", ":latest", ":v1.2"]),
    st.sampled_from(["", f"@{DIGEST}"]),
)
def test_normalise_docker_name_applied_twice_changes_nothing(
    domain: str, path: list[str], tag: str, digest: str
) -> None:
    """The canonical form is a fixed point."""
    once = normalise_docker_name(f"{domain}{'/'.join(path)}{tag}{digest}")
    assert normalise_docker_name(once) == once


@given(st.text(max_size=60))
def test_parse_garbage_raises_only_invalid_name(text: str) -> None:
    """Whatever text comes in, the parser gives a reference or one kind of error."""
    try:
        parsed = ImageReference.parse(text)
    except InvalidNameError:
        return
    assert ImageReference.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["latest", "1.0", "v1_2-x", "_x", "A" * 128])
def test_is_tag_tag_is_recognised(text: str) -> None:
    """Tags are told from references."""
    assert is_tag(text)


@pytest.mark.parametrize("text", ["", "a:b", "a/b", "-x", ".x", "A" * 129, "a b"])
def test_is_tag_reference_is_not_a_tag(text: str) -> None:
    """Anything with a separator, or too long, is no tag."""
    assert not is_tag(text)


@pytest.mark.parametrize("text", ["a", "My App:1", "lfedge/eve#1", "ä", "x" * 1024])
def test_check_image_name_printable_is_returned(text: str) -> None:
    """Any printable name will do."""
    assert check_image_name(text) == text


@pytest.mark.parametrize(
    "text", ["", " a", "a ", "a\n", "a\tb", "a\x00b", "a\x1b[0m", "\ud800", "x" * 1025, "ä" * 600]
)
def test_check_image_name_unusable_is_refused(text: str) -> None:
    """Control characters, outer spaces, nothing and too much are refused."""
    with pytest.raises(InvalidNameError):
        check_image_name(text)
