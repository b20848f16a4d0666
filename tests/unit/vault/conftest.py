"""What tests of vaults share."""

import pytest


@pytest.fixture(autouse=True)
def _quiet_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the TPM's library says beside its answers out of the output."""
    monkeypatch.setenv("TSS2_LOG", "all+NONE")
