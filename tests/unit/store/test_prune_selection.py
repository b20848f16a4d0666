"""Which references filters select in each scope."""

from datetime import UTC, datetime

import pytest

from cas.errors import UsageError
from cas.store.prune.selection import Scope, parse_selection

NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("scope", "texts", "images", "pins"),
    [
        (Scope.ALL, [], True, False),
        (Scope.ALL, ["until=24h"], True, True),
        (Scope.ALL, ["reference=x"], True, False),
        (Scope.ALL, ["size>1GB"], False, True),
        (Scope.ALL, ["size>1GB", "until=24h"], False, True),
        (Scope.IMAGES, [], True, False),
        (Scope.IMAGES, ["until=24h"], True, False),
        (Scope.BLOBS, [], False, False),
        (Scope.BLOBS, ["until=24h"], False, True),
    ],
)
def test_selection_takes_images_and_pins_by_scope_and_filter(
    scope: Scope, texts: list[str], images: bool, pins: bool
) -> None:
    """Without a filter no pin goes; a filter of one kind selects nothing of the other."""
    selection = parse_selection(texts, now=NOW, scope=scope)
    assert (selection.images is not None, selection.pins is not None) == (images, pins)


@pytest.mark.parametrize(
    ("scope", "texts"),
    [
        (Scope.ALL, ["reference=x", "size>1GB"]),
        (Scope.ALL, ["untill=24h"]),
        (Scope.ALL, ["until=24h", "colour=red"]),
        (Scope.ALL, ["until=soon"]),
        (Scope.IMAGES, ["size>1GB"]),
        (Scope.BLOBS, ["reference=x"]),
    ],
)
def test_filters_that_nothing_can_pass_are_a_usage_error(scope: Scope, texts: list[str]) -> None:
    """Also a typing error among good filters, which must not widen the selection."""
    with pytest.raises(UsageError):
        parse_selection(texts, now=NOW, scope=scope)


@pytest.mark.parametrize("scope", list(Scope))
def test_selection_remembers_what_it_was_parsed_from(scope: Scope) -> None:
    """Whoever asks a service to prune hands on texts; ages then count there."""
    selection = parse_selection(["until=1h"], now=NOW, scope=scope)

    assert selection.scope is scope
    assert selection.texts == ("until=1h",)
