"""The seam that crash tests hang on."""

from pathlib import Path

import pytest

from cas.fsops.effects import Effect, effect, observed


def test_effect_without_observer_does_nothing() -> None:
    """Production has no observer."""
    effect(Effect.RENAME, "/nowhere")


def test_effect_with_observer_is_announced_with_kind_and_path() -> None:
    """The observer learns what happens to which path."""
    seen: list[tuple[Effect, str]] = []
    with observed(lambda kind, path: seen.append((kind, path))):
        effect(Effect.FSYNC, Path("/a b"))
    effect(Effect.UNLINK, "/after")
    assert seen == [(Effect.FSYNC, "/a b")]


def test_observer_that_raises_comes_out_and_is_removed_afterwards() -> None:
    """What the observer raises reaches the caller, and the seam is free again."""

    def refuse(kind: Effect, path: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), observed(refuse):
        effect(Effect.LINK, "/x")
    effect(Effect.LINK, "/x")


def test_inner_observer_replaces_outer_for_its_block() -> None:
    """After the inner block the outer observer listens again."""
    outer: list[str] = []
    inner: list[str] = []
    with observed(lambda _, path: outer.append(path)):
        with observed(lambda _, path: inner.append(path)):
            effect(Effect.MKDIR, "1")
        effect(Effect.MKDIR, "2")
    assert (outer, inner) == (["2"], ["1"])
