"""Writes that containerd's death or a full disk interrupts."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.containerd.daemon import Daemon
from cas.errors import CasError, DaemonUnavailableError, NoSpaceError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.limits import CHUNK_BYTES
from cas.model.records import LeaseID
from tests.support.daemon import WAIT_SECONDS, connect, private_daemon, settings_for
from tests.support.frozen import frozen
from tests.support.interrupting import interrupt_wait
from tests.support.layers import Compression, build_layer, file
from tests.support.loopfs import LoopFileSystem

_MIB = 1024 * 1024
LEASE = LeaseID("l")


@pytest.fixture
def small_store(
    loop_ext4: Callable[[int], LoopFileSystem], containerd_binary: str
) -> Iterator[Containerd]:
    """A store on a disk of 64 MiB, with a lease."""
    settings = settings_for(loop_ext4(64 * _MIB).path, containerd_binary)
    with private_daemon(settings), connect(settings) as containerd:
        containerd.leases.create(LEASE, {})
        yield containerd


def _write(containerd: Containerd, ref: str, chunks: int) -> None:
    with containerd.content.open_writer(ref, LEASE, total=None) as writer:
        for _ in range(chunks):
            writer.write(os.urandom(CHUNK_BYTES))
        assert writer.digest is not None


def test_write_containerd_killed_goes_on_where_it_stopped(restartable_daemon: Daemon) -> None:
    """What containerd had is still there, and its digest tells that it is ours."""
    data = os.urandom(8 * CHUNK_BYTES)
    half = len(data) // 2
    with connect(restartable_daemon.settings) as containerd:
        containerd.leases.create(LEASE, {})
        with containerd.content.open_writer("r", LEASE, total=len(data)) as writer:
            writer.write(data[:half])
            assert writer.digest == Digest.of(data[:half])
            restartable_daemon.kill()
            with pytest.raises(DaemonUnavailableError):
                writer.commit(half, Digest.of(data[:half]), {})

        restartable_daemon.start()

    with connect(restartable_daemon.settings) as containerd:
        with containerd.content.open_writer("r", LEASE, total=len(data)) as writer:
            assert (writer.offset, writer.digest) == (half, Digest.of(data[:half]))
            writer.write(data[half:])
            assert writer.commit(len(data), Digest.of(data), {}) is True
        assert containerd.content.read_all(Digest.of(data), limit=len(data)) == data


def test_read_containerd_killed_in_mid_stream_is_unavailable(restartable_daemon: Daemon) -> None:
    """A stream that breaks does not look like the end of the blob."""
    data = bytes(64 * _MIB)
    with connect(restartable_daemon.settings) as containerd:
        containerd.leases.create(LEASE, {})
        with containerd.content.open_writer("r", LEASE, total=None) as writer:
            for begin in range(0, len(data), CHUNK_BYTES):
                writer.write(data[begin : begin + CHUNK_BYTES])
            writer.commit(len(data), Digest.of(data), {})
        chunks = containerd.content.read(Digest.of(data))
        next(chunks)
        restartable_daemon.kill()
        with pytest.raises(DaemonUnavailableError):
            list(chunks)


@pytest.mark.slow
def test_write_on_a_full_disk_is_no_space_and_works_after_room_is_made(
    small_store: Containerd,
) -> None:
    """An aborted write gives its room back at once."""
    with pytest.raises(NoSpaceError, match="cas prune"):
        _write(small_store, "big", 100)
    assert [ingest.ref for ingest in small_store.content.iter_ingests()] == ["big"]

    assert small_store.content.abort("big") is True

    small_store.content.put("small", LEASE, b"x" * _MIB, Digest.of(b"x" * _MIB), {})
    assert small_store.content.info(Digest.of(b"x" * _MIB)).size == _MIB


@pytest.mark.slow
def test_put_on_a_full_disk_is_no_space_and_leaves_no_ingest(small_store: Containerd) -> None:
    """Small blobs are not what keeps a full disk full."""

    def fill() -> None:
        for number in range(200):
            data = os.urandom(_MIB)
            small_store.content.put(f"r{number}", LEASE, data, Digest.of(data), {})

    with pytest.raises(NoSpaceError):
        fill()
    assert list(small_store.content.iter_ingests()) == []


@pytest.mark.slow
def test_apply_on_a_full_disk_is_no_space_and_not_a_bad_layer(small_store: Containerd) -> None:
    """Nobody throws a good layer away; a little room and a second sweep bring the rest back."""
    reserve = small_store.facts.content_root
    assert reserve is not None
    reserve = reserve.parent / "reserve"
    reserve.write_bytes(os.urandom(2 * _MIB))
    layer = build_layer([file("zeros", bytes(80 * _MIB))], Compression.GZIP)
    digest = Digest.of(layer.blob)
    small_store.content.put("r", LEASE, layer.blob, digest, {})
    mounts = small_store.snapshots.prepare("k", "", LEASE, {})
    descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar", digest, len(layer.blob))

    with pytest.raises(NoSpaceError):
        small_store.diff.apply(descriptor, mounts, LEASE, watch=lambda: None)

    assert small_store.snapshots.remove("k") is True
    small_store.leases.collect_garbage()
    reserve.unlink()
    small_store.snapshots.request_sweep(LEASE)
    small_store.leases.collect_garbage()
    assert not Path(mounts[0].source).exists()
    for number in range(20):
        data = os.urandom(_MIB)
        small_store.content.put(f"r{number}", LEASE, data, Digest.of(data), {})


def test_every_call_without_containerd_is_unavailable(restartable_daemon: Daemon) -> None:
    """No call hangs, and none lets gRPC's own errors through."""
    digest = Digest.of(b"x")
    target = Descriptor("a/b", digest, 1)
    with connect(restartable_daemon.settings) as containerd:
        restartable_daemon.kill()
        calls: list[Callable[[], object]] = [
            lambda: containerd.content.info(digest),
            lambda: list(containerd.content.iter_blobs()),
            lambda: containerd.content.update_labels(digest, {"a": "b"}),
            lambda: containerd.content.delete(digest),
            lambda: list(containerd.content.read(digest)),
            lambda: containerd.content.read_all(digest, limit=1),
            lambda: list(containerd.content.iter_ingests()),
            lambda: containerd.content.abort("r"),
            lambda: containerd.content.open_writer("r", LEASE, total=None),
            lambda: containerd.content.put("r", LEASE, b"x", digest, {}),
            lambda: containerd.content.adopt("r", LEASE, digest, 1, {}),
            lambda: containerd.leases.create(LEASE, {}),
            lambda: containerd.leases.delete(LEASE),
            lambda: list(containerd.leases.iter_leases()),
            lambda: list(containerd.leases.iter_resources(LEASE)),
            containerd.leases.collect_garbage,
            lambda: containerd.images.create("i", target, {}),
            lambda: containerd.images.get("i"),
            lambda: containerd.images.update_target("i", target),
            lambda: containerd.images.delete("i"),
            lambda: list(containerd.images.iter_images()),
            lambda: containerd.snapshots.prepare("k", "", LEASE, {}),
            lambda: containerd.snapshots.commit("n", "k", LEASE, {}),
            lambda: containerd.snapshots.remove("k"),
            lambda: containerd.snapshots.stat("k"),
            lambda: list(containerd.snapshots.iter_snapshots()),
            lambda: containerd.snapshots.usage("k"),
            lambda: containerd.diff.apply(target, [], LEASE, watch=lambda: None),
            lambda: containerd.namespaces.labels("t"),
            lambda: containerd.namespaces.set_labels("t", {"a": "b"}),
            lambda: list(containerd.namespaces.iter_namespaces()),
        ]
        for number, call in enumerate(calls):
            with pytest.raises(CasError) as caught:
                call()
            assert type(caught.value) is DaemonUnavailableError, number


@pytest.mark.slow
@pytest.mark.parametrize("call", ["info", "list", "read", "write", "close", "apply"])
def test_interrupt_while_containerd_is_frozen_ends_the_call(
    restartable_daemon: Daemon, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends any wait for it; when containerd goes on, so can we."""
    # gRPC's own wait is made anew each tenth of a second otherwise; see interrupt_wait.
    monkeypatch.setattr("grpc._common.MAXIMUM_WAIT_TIMEOUT", WAIT_SECONDS)
    digest = Digest.of(b"x")
    descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar", digest, 1)
    with connect(restartable_daemon.settings) as containerd:
        containerd.leases.create(LEASE, {})
        mounts = containerd.snapshots.prepare("k", "", LEASE, {})
        writer = containerd.content.open_writer("w", LEASE, total=None)
        calls: dict[str, Callable[[], object]] = {
            "info": lambda: containerd.content.info(digest),
            "list": lambda: list(containerd.content.iter_blobs()),
            "read": lambda: list(containerd.content.read(digest)),
            "write": lambda: [writer.write(bytes(CHUNK_BYTES)) for _ in range(10)],
            "close": writer.close,
            "apply": lambda: containerd.diff.apply(
                descriptor, mounts, LEASE, watch=lambda: None, watch_seconds=WAIT_SECONDS
            ),
        }
        with frozen(restartable_daemon) as ice:
            interrupter = threading.Thread(target=interrupt_wait, args=(ice.was_asked,))
            interrupter.start()
            with pytest.raises(KeyboardInterrupt):
                calls[call]()
            interrupter.join()
        writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        with containerd.content.open_writer("w", LEASE, total=None) as again:
            again.restart()
            again.write(b"x")
            assert again.commit(1, digest, {}) is True
