"""Fixtures of crash tests."""

import pytest

from tests.integration.pull.conftest import device, pull_settings, registry

__all__ = ["crash_seed", "device", "every_step", "pull_settings", "registry"]


@pytest.fixture
def crash_seed(pytestconfig: pytest.Config) -> int:
    """Seed of everything random; printed with a failure, set by ``--crash-seed``."""
    seed = int(pytestconfig.getoption("--crash-seed"))
    print(f"--crash-seed {seed}")
    return seed


@pytest.fixture
def every_step(pytestconfig: pytest.Config) -> bool:
    """Whether to act at every step, where otherwise some will do: ``--every-step``."""
    return bool(pytestconfig.getoption("--every-step"))
