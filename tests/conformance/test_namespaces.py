"""Namespaces and their labels, on a real containerd."""

import pytest

from cas.containerd.client import Containerd
from cas.errors import InUseError, InvalidNameError
from cas.model.records import LeaseID


def test_labels_of_unknown_namespace_are_none(containerd: Containerd) -> None:
    """Asking does not make it."""
    assert containerd.namespaces.labels("t-unknown") == {}
    assert "t-unknown" not in containerd.namespaces.iter_namespaces()


def test_set_labels_makes_the_namespace_and_keeps_other_labels(containerd: Containerd) -> None:
    """The first object need not come first."""
    name = containerd.namespace
    containerd.namespaces.set_labels(name, {"a": "1"})
    containerd.namespaces.set_labels(name, {"b": "2"})
    assert containerd.namespaces.labels(name) == {"a": "1", "b": "2"}
    assert name in containerd.namespaces.iter_namespaces()


def test_set_labels_after_the_first_object_finds_the_namespace(
    containerd: Containerd, lease: LeaseID
) -> None:
    """containerd makes a namespace with its first object."""
    containerd.namespaces.set_labels(containerd.namespace, {"a": "1"})
    assert containerd.namespaces.labels(containerd.namespace) == {"a": "1"}


@pytest.mark.parametrize("name", ["", "no spaces", "-a", "a--b", "a/b", "ä", "a" * 77])
def test_impossible_name_is_refused_and_leaves_nothing(containerd: Containerd, name: str) -> None:
    """containerd itself stores such a name and then fails."""
    with pytest.raises(InvalidNameError):
        containerd.namespaces.set_labels(name, {"a": "1"})
    with pytest.raises(InvalidNameError):
        containerd.in_namespace(name)
    assert name not in containerd.namespaces.iter_namespaces()


def test_delete_namespace_with_objects_is_refused(containerd: Containerd, lease: LeaseID) -> None:
    """Emptied, it goes; once."""
    name = containerd.namespace
    containerd.snapshots.prepare("k", "", lease, {})
    with pytest.raises(InUseError):
        containerd.namespaces.delete(name)
    containerd.snapshots.remove("k")
    containerd.leases.delete(lease, sync=True)
    assert containerd.namespaces.delete(name) is True
    assert containerd.namespaces.delete(name) is False
