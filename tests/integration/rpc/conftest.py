"""A service on the session's containerd, in a namespace of the test's own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.settings import Settings
from tests.support.rpc import Service, serve


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A directory whose files callers may name."""
    directory = tmp_path / "allowed"
    directory.mkdir()
    return directory


@pytest.fixture
def case(settings: Settings, allowed: Path) -> Iterator[Case]:
    """The store that is served."""
    with Case.open(replace(settings, allowed_directories=(allowed,))) as case:
        yield case


@pytest.fixture
def service(case: Case, allowed: Path) -> Iterator[Service]:
    """A running service."""
    with serve(case, allowed) as service:
        yield service
