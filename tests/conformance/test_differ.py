"""Unpacking layers, on a real containerd."""

import gzip
import tarfile
import time
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import (
    BlobNotFoundError,
    InterruptedOperationError,
    LayerError,
    LeaseNotFoundError,
)
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.records import LeaseID, Mount
from tests.support.daemon import WAIT_SECONDS
from tests.support.layers import BuiltLayer, Compression, build_layer, file, hard_link

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def _watch() -> None:
    """Nothing to object."""


def _store(containerd: Containerd, blob: bytes, lease: LeaseID, media_type: str) -> Descriptor:
    digest = Digest.of(blob)
    with containerd.content.open_writer(f"ref-{digest.short}", lease, total=None) as writer:
        for begin in range(0, len(blob), 1 << 20):
            writer.write(blob[begin : begin + (1 << 20)])
        writer.commit(len(blob), digest, {})
    return Descriptor(media_type, digest, len(blob))


def _stored_layer(containerd: Containerd, layer: BuiltLayer, lease: LeaseID) -> Descriptor:
    return _store(containerd, layer.blob, lease, GZIP)


def _prepared(containerd: Containerd, lease: LeaseID) -> list[Mount]:
    return containerd.snapshots.prepare("k", "", lease, {})


@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize(
    "media_type",
    [
        GZIP,
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ],
)
def test_apply_any_compression_under_any_layer_type_gives_the_diff_id(
    containerd: Containerd, lease: LeaseID, compression: Compression, media_type: str
) -> None:
    """The bytes decide, not the type, on every version."""
    layer = build_layer([file("etc/motd", b"hello")], compression)
    descriptor = _store(containerd, layer.blob, lease, media_type)
    mounts = _prepared(containerd, lease)

    applied = containerd.diff.apply(descriptor, mounts, lease, watch=_watch)

    assert str(applied.digest) == layer.diff_id
    assert applied.size == len(layer.tar)
    assert Path(mounts[0].source, "etc/motd").read_bytes() == b"hello"


def test_apply_truncated_layer_is_a_layer_error(containerd: Containerd, lease: LeaseID) -> None:
    """containerd's refusal names the layer."""
    layer = build_layer([file("f", bytes(100_000))])
    descriptor = _store(containerd, layer.blob[:-20], lease, GZIP)
    with pytest.raises(LayerError, match=descriptor.digest.hex):
        containerd.diff.apply(descriptor, _prepared(containerd, lease), lease, watch=_watch)


def test_apply_hard_link_to_nowhere_is_a_layer_error(
    containerd: Containerd, lease: LeaseID
) -> None:
    """A layer that links outside of itself cannot be unpacked."""
    layer = build_layer([hard_link("link", "../../../../etc/passwd")])
    descriptor = _stored_layer(containerd, layer, lease)
    with pytest.raises(LayerError):
        containerd.diff.apply(descriptor, _prepared(containerd, lease), lease, watch=_watch)


def test_apply_absent_blob_is_not_found(containerd: Containerd, lease: LeaseID) -> None:
    """While the lease lives, it is the blob that is missing."""
    descriptor = Descriptor(GZIP, Digest.of(b"absent"), 6)
    with pytest.raises(BlobNotFoundError):
        containerd.diff.apply(descriptor, _prepared(containerd, lease), lease, watch=_watch)


def test_apply_without_blob_and_lease_is_a_lost_lease(
    containerd: Containerd, lease: LeaseID
) -> None:
    """A blob that went with its lease is explained by the lease."""
    descriptor = Descriptor(GZIP, Digest.of(b"absent"), 6)
    mounts = _prepared(containerd, lease)
    with pytest.raises(LeaseNotFoundError):
        containerd.diff.apply(descriptor, mounts, LeaseID("gone"), watch=_watch)


def test_apply_watch_that_raises_ends_the_call(containerd: Containerd, lease: LeaseID) -> None:
    """Cancellation reaches containerd: it stops writing long before the layer's end."""
    size = 4 << 30  # many seconds of work: it cannot be done before it is looked at
    member = tarfile.TarInfo("bomb")
    member.size = size
    zeros = gzip.compress(bytes(1 << 24), 9)
    blob = gzip.compress(member.tobuf(), 1) + zeros * (size >> 24)
    descriptor = _store(containerd, blob, lease, GZIP)
    mounts = _prepared(containerd, lease)
    bomb = Path(mounts[0].source, "bomb")

    def watch() -> None:
        if bomb.exists() and bomb.stat().st_size:
            raise InterruptedOperationError("enough")

    with pytest.raises(InterruptedOperationError):
        containerd.diff.apply(descriptor, mounts, lease, watch=watch, watch_seconds=0.01)

    deadline = time.monotonic() + WAIT_SECONDS
    before = -1
    while (now := bomb.stat().st_size) != before:
        assert time.monotonic() < deadline
        before = now
        containerd.health()
    assert now < size
