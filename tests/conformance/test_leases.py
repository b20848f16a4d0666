"""Leases, on a real containerd."""

import pytest

from cas.containerd.client import Containerd
from cas.errors import AlreadyExistsError, LeaseNotFoundError
from cas.model.digest import Digest
from cas.model.records import LeaseID, LeaseResource

A, B = LeaseID("a"), LeaseID('b,"c"')
BLOB = LeaseResource("content", str(Digest.of(b"x")))


def test_create_lease_gives_it_back_with_labels(containerd: Containerd) -> None:
    """Labels say whose it is."""
    made = containerd.leases.create(A, {"who": "me"})
    assert (made.id, made.labels) == (A, {"who": "me"})
    assert list(containerd.leases.iter_leases()) == [made]


def test_create_existing_lease_is_refused(containerd: Containerd) -> None:
    """Two owners never share one."""
    containerd.leases.create(A, {})
    with pytest.raises(AlreadyExistsError):
        containerd.leases.create(A, {})


@pytest.mark.parametrize("sync", [False, True])
def test_delete_lease_twice_tells_whether_it_was_there(containerd: Containerd, sync: bool) -> None:
    """Deleting is idempotent, with a collection and without."""
    containerd.leases.create(A, {})
    assert containerd.leases.delete(A, sync=sync) is True
    assert containerd.leases.delete(A, sync=sync) is False


def test_exists_odd_id_is_found_exactly(containerd: Containerd) -> None:
    """Commas and quotes in an id do not change the question."""
    containerd.leases.create(B, {})
    assert containerd.leases.exists(B)
    assert not containerd.leases.exists(A)


def test_iter_leases_filter_selects_by_label(containerd: Containerd) -> None:
    """Filters are containerd's own."""
    containerd.leases.create(A, {"who": "me"})
    containerd.leases.create(B, {"who": "you"})
    assert [lease.id for lease in containerd.leases.iter_leases(['labels."who"==you'])] == [B]


def test_add_resource_absent_blob_is_held_already(containerd: Containerd) -> None:
    """Pinning comes before looking; pinning twice is once."""
    containerd.leases.create(A, {})
    for _ in range(2):
        containerd.leases.add_resource(A, BLOB)
        assert list(containerd.leases.iter_resources(A)) == [BLOB]


def test_resources_of_absent_lease_are_a_lost_lease(containerd: Containerd) -> None:
    """Neither pinning nor listing goes through quietly."""
    with pytest.raises(LeaseNotFoundError):
        containerd.leases.add_resource(A, BLOB)
    with pytest.raises(LeaseNotFoundError):
        list(containerd.leases.iter_resources(A))


def test_collect_garbage_leaves_no_lease_of_its_own(containerd: Containerd) -> None:
    """The lease that asks for the collection is gone afterwards."""
    containerd.leases.create(A, {})
    containerd.leases.collect_garbage()
    assert [lease.id for lease in containerd.leases.iter_leases()] == [A]


def test_expired_lease_is_collected_with_what_it_held(containerd: Containerd) -> None:
    """A holder that died without being reaped does not keep content for ever."""
    containerd.leases.create(A, {"containerd.io/gc.expire": "2001-01-01T00:00:00Z"})
    containerd.content.put("r", A, b"x", Digest.of(b"x"), {})
    containerd.leases.collect_garbage()
    assert list(containerd.leases.iter_leases()) == []
    assert list(containerd.content.iter_blobs()) == []
