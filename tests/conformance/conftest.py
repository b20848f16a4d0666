"""What the suites of all ports share: a lease to work under."""

from collections.abc import Iterator

import pytest

from cas.containerd.client import Containerd
from cas.model.records import LeaseID


@pytest.fixture
def lease(containerd: Containerd) -> Iterator[LeaseID]:
    """A lease that lives as long as the test."""
    lease_id = LeaseID("lease-of-the-test")
    containerd.leases.create(lease_id, {})
    yield lease_id
    containerd.leases.delete(lease_id)
