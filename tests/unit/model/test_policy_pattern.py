"""Which patterns of a signature policy can match anything."""

import re
from fnmatch import fnmatchcase

import pytest

from cas.errors import InvalidNameError
from cas.model.policy_name import identity_name, policy_name
from cas.model.policy_pattern import check_identity, check_pattern
from cas.model.reference import ImageReference

DIGEST = "sha256:" + "a" * 64
NAMES = [
    policy_name(ImageReference.parse(text))
    for text in (
        "alpine",
        "alpine:3.20",
        "team/app:1",
        f"r.example/app@{DIGEST}",
        f"r.example/app:V1@{DIGEST}",
        "r.example:5000/team/app:V1",
        "alpine:5000/x",
        "localhost/app:1",
    )
] + [
    policy_name(url)
    for url in ("https://r.example/a/b", "http://r.example:443/a", "file:///a/b", "s3://b/a")
]


@pytest.mark.parametrize(
    ("pattern", "normal"),
    [
        ("R.example/*", "r.example/*"),
        ("*.R.example/*", "*.r.example/*"),
        ("r.example:443/*", "r.example/*"),
        ("r.example:0443/app:?", "r.example/app:?"),
        ("r.example./*", "r.example/*"),
        ("index.docker.io/team/*", "docker.io/team/*"),
        ("Registry-1.docker.io:443/*", "docker.io/*"),
        ("docker://r.example/*", "r.example/*"),
        ("oci://r.example:443/*", "r.example/*"),
        ("OCI://r.example/*", "r.example/*"),
        ("https://R.example/a/*", "https://r.example/a/*"),
        ("HTTPS://r.example/a/*", "https://r.example/a/*"),
        ("https://r.example:443/a", "https://r.example/a"),
        ("http://r.example:80/*", "http://r.example/*"),
        ("https://bob@r.example/*", "https://r.example/*"),
        ("sftp://r.example:22/*", "sftp://r.example/*"),
        ("alpine", "docker.io/library/alpine:latest"),
        ("team/*", "docker.io/team/*"),
        ("docker.io/alpine:*", "docker.io/library/alpine:*"),
        ("r.example/Team/*", "r.example/team/*"),
        ("r.example/app", "r.example/app:latest"),
        (f"r.example/app:1@{DIGEST}", "r.example/app:1"),
    ],
)
def test_pattern_that_no_name_can_match_is_refused_with_one_that_can(
    pattern: str, normal: str
) -> None:
    """The message has it, and what it has is accepted."""
    with pytest.raises(InvalidNameError) as caught:
        check_pattern(pattern)

    assert repr(normal) in caught.value.message
    check_pattern(normal)
    assert [name for name in NAMES if fnmatchcase(name, pattern)] == []


@pytest.mark.parametrize("pattern", ["", "r.example/", "https://r.example/a//b", "file:///a/../b"])
def test_pattern_that_is_the_name_of_nothing_is_refused(pattern: str) -> None:
    """Such a file is refused itself."""
    with pytest.raises(InvalidNameError):
        check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "*",
            "*/app:*",
            "*.example/*",
            "alpine:*",
            "localhost/*",
            "*:443/x",
            "http*",
            "https://*",
        ),
        *("r.example/*", "r.example/app:V*", "docker.io/al*", "docker.io/library/alpine:*"),
        *("r.example:5000/*/Prod", "[rs].example/*", "file:///a/*", "https://r.example:8443/a?b*"),
        f"r.example/app@{DIGEST}",
        *NAMES,
    ],
)
def test_pattern_that_some_name_can_match_is_accepted(pattern: str) -> None:
    """Nobody is told that a good policy is wrong."""
    check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "normal"),
    [
        ("R.example/*", "r.example/*"),
        ("r.example:443/app", "r.example/app"),
        ("docker://r.example/*", "r.example/*"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine"),
        ("index.docker.io/team/*", "docker.io/team/*"),
        ("alpine", "docker.io/library/alpine"),
    ],
)
def test_identity_that_no_signed_name_can_match_is_refused_with_one_that_can(
    pattern: str, normal: str
) -> None:
    """As a pattern of images is."""
    with pytest.raises(InvalidNameError, match=re.escape(f"write {normal!r}")):
        check_identity(pattern)

    check_identity(normal)


@pytest.mark.parametrize(
    ("signed", "identity"),
    [
        ("index.docker.io/library/alpine", "docker.io/library/alpine"),
        ("r.example:443/app", "r.example/app"),
        ("r.example/app:1", "r.example/app:1"),
        ("r.example/app:latest", "r.example/app:latest"),
        ("r.example/app", "r.example/*"),
        ("of a pipeline", "*"),
    ],
)
def test_name_that_was_signed_is_compared_in_one_form(signed: str, identity: str) -> None:
    """cosign calls docker's hub by the name of its server, and leaves tags out."""
    check_identity(identity)
    assert fnmatchcase(identity_name(signed), identity)


def test_rule_without_an_identity_takes_any() -> None:
    """There is nothing to check."""
    check_identity("")
