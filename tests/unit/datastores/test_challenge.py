"""What a registry asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.datastores.registry.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("value", "challenges"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"',
            [
                (
                    "bearer",
                    {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"},
                )
            ],
        ),
        (
            'Bearer realm="r", scope="repository:a/b:pull,push", error=insufficient_scope',
            [
                (
                    "bearer",
                    {
                        "realm": "r",
                        "scope": "repository:a/b:pull,push",
                        "error": "insufficient_scope",
                    },
                )
            ],
        ),
        ("basic", [("basic", {})]),
        ('BASIC Realm="a \\"quoted\\" one"', [("basic", {"realm": 'a "quoted" one'})]),
        (
            'Basic realm="x", Bearer realm="y",service=z',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})],
        ),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("", []),
        ("\x00\x01", []),
        ('Bearer realm="unfinished', [("bearer", {"realm": '"unfinished'})]),
    ],
)
def test_parse_challenges_reads_each(
    value: str, challenges: list[tuple[str, dict[str, str]]]
) -> None:
    """Quoted and bare, one and several."""
    assert parse_challenges([value]) == [Challenge(*each) for each in challenges]


@given(st.lists(st.text(max_size=200), max_size=3))
def test_parse_challenges_of_garbage_never_fails(values: list[str]) -> None:
    """It comes from anyone."""
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower()


def test_parse_challenges_of_an_endless_value_is_quick() -> None:
    """No pattern of ours backtracks for ever."""
    parse_challenges(["a=" * 10**6, '"' * 10**6, "a " * 10**6, 'a="' + "\\" * 10**6])
    parse_challenges(["a" + " " * 10**6 + "\x01", "a" * 10**6, ", " * 10**6] * 300)
