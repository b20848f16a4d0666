"""Fixtures of crash tests."""

import pytest

from tests.integration.pull.conftest import device, pull_settings, registry

__all__ = ["crash_seed", "device", "pull_settings", "registry"]


@pytest.fixture
def crash_seed(pytestconfig: pytest.Config) -> int:
    """Seed of everything random; printed with a failure, set by ``--crash-seed``."""
    seed = int(pytestconfig.getoption("--crash-seed"))
    print(f"--crash-seed {seed}")
    return seed
