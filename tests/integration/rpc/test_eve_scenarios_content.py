"""What went wrong in EVE with blobs, images and their collection, played through the service.

Each test quotes the number of the bug in EVE's tracker. Those about volumes are in
test_eve_scenarios_volumes.py.
"""

import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, types_pb2, volumes_pb2
from cas.app import Case
from cas.model.digest import Digest
from cas.model.records import LeaseID, LeaseResource
from tests.support.images import BuiltImage, build_image, layered_image
from tests.support.layers import Compression, build_layer, file
from tests.support.rpc import Service, error_info, failing, last, serve
from tests.support.stores import assert_never_stored, assert_nothing_left
from tests.support.volumemgr import VolumeManager, tar_requests

DATA = os.urandom(300_000)
DIGEST = str(Digest.of(DATA))


@pytest.fixture
def manager(service: Service, allowed: Path) -> VolumeManager:
    """The caller."""
    return VolumeManager(service, allowed)


@pytest.fixture
def image() -> BuiltImage:
    """Not in the store yet."""
    return _image()


@contextmanager
def _restarted(service: Service, allowed: Path) -> Iterator[VolumeManager]:
    """The service after a reboot: recovered, and containerd has collected garbage."""
    service.server.stop(grace_seconds=0)
    with Case.open(service.case.settings) as case, serve(case, allowed) as again:
        manager = VolumeManager(again, allowed)
        manager.recover()
        manager.collect_garbage()
        yield manager


def _image(layers: int = 2) -> BuiltImage:
    name = uuid.uuid4().hex
    return layered_image(layers, name=f"example.com/{name}:1", seed=name)


def _bare_disk() -> BuiltImage:
    """A disk with the manifest and config that somebody generated around it."""
    layer = build_layer([file("disk", os.urandom(1000))], Compression.NONE)
    return build_image([layer], name=f"example.com/disk/{uuid.uuid4().hex}:1")


def test_collection_between_commit_and_image_takes_nothing(
    service: Service, manager: VolumeManager, image: BuiltImage, tmp_path: Path
) -> None:
    """EVE #1248: blobs had no lease until the image existed, and the collector ran in between."""
    archive = image.write_oci_tar(tmp_path / "image.tar").read_bytes()

    requests = tar_requests(archive, image.name, manager.collect_garbage)
    [record] = service.images.Upload(requests).images

    manager.collect_garbage()
    assert record.target.digest == image.digest
    assert manager.holes(image.name) == []
    assert_nothing_left(service.case.backing)


def test_image_deployed_again_right_after_its_removal_is_whole(
    manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #1248: "blob not found" when an app came back while its old image was collected."""
    manager.load(image)
    for _ in range(5):
        assert manager.remove_image(image.name)
        with ThreadPoolExecutor() as threads:
            collection = threads.submit(manager.collect_garbage)
            manager.load(image)
            collection.result()
        assert manager.holes(image.name) == []


def test_collection_at_boot_spares_what_images_refer_to(
    service: Service, allowed: Path, manager: VolumeManager
) -> None:
    """EVE #1501: generated manifests went at boot, before the configuration had come."""
    disk = _bare_disk()
    manager.load(disk)

    with _restarted(service, allowed) as after_boot:
        after_boot.prune_blobs()

        assert after_boot.holes(disk.name) == []
        assert all(after_boot.blob_exists(digest) for digest in disk.blobs)


def test_image_with_one_layer_twice_is_released_once(
    service: Service, manager: VolumeManager
) -> None:
    """EVE #1472, #1488: a count per listing fell below zero when such an image was deleted."""
    layer = build_layer([file("same", uuid.uuid4().bytes)], Compression.GZIP)
    twice = build_image([layer, layer], name=f"example.com/twice/{uuid.uuid4().hex}:1")
    once = build_image([layer], name=f"example.com/once/{uuid.uuid4().hex}:1")
    for image in (twice, once):
        manager.load(image)
    children = service.blobs.Children(blobs_pb2.BlobChildrenRequest(digest=twice.digest)).children
    assert [child.digest for child in children].count(layer.digest) == 2

    assert manager.remove_image(twice.name)
    assert not manager.remove_image(twice.name)

    manager.collect_garbage()
    assert not manager.blob_exists(twice.digest)
    assert manager.holes(once.name) == []
    assert manager.remove_image(once.name)
    manager.collect_garbage()
    assert not manager.blob_exists(layer.digest)


def test_two_trees_load_one_blob_at_once_and_both_succeed(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #1524: the second of two loads of one blob failed."""
    names = [f"example.com/tree/{number}:1" for number in range(8)]
    for digest, data in image.blobs.items():
        manager.verified(data, digest)

    with ThreadPoolExecutor(len(names)) as threads:
        records = list(threads.map(lambda name: manager.load_again(image, name), names))

    assert [record.name for record in records] == names
    assert [manager.holes(name) for name in names] == [[]] * len(names)
    assert_nothing_left(service.case.backing)


def test_ingest_of_one_digest_by_many_writes_it_once(service: Service, allowed: Path) -> None:
    """EVE #1524: one ingest per digest; whoever comes later shares it."""
    path = allowed / "blob"
    path.write_bytes(DATA)
    together = threading.Barrier(16)

    def ingest(_number: int) -> bool:
        together.wait()
        request = blobs_pb2.IngestBlobRequest(path=str(path), digest=DIGEST)
        return last(service.blobs.Ingest(request)).ingested.created

    with ThreadPoolExecutor(16) as threads:
        assert sorted(threads.map(ingest, range(16))) == [False] * 15 + [True]


def test_blobs_of_another_tree_do_not_make_an_image(
    manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #2006: a tree counted as loaded when its blobs were, though it had no image."""
    manager.load(image)
    mine = "example.com/mine:1"
    assert not manager.image_exists(mine)

    assert manager.load_again(image, mine).target.digest == image.digest

    manager.remove_image(image.name)
    manager.collect_garbage()
    assert manager.holes(mine) == []


def test_verified_file_that_another_tree_took_is_not_missed(
    manager: VolumeManager, image: BuiltImage, allowed: Path
) -> None:
    """EVE #6075: the first tree's load removed the file of a layer that both share."""
    manager.load(image)
    assert list(allowed.iterdir()) == []

    assert manager.load_again(image, "example.com/second:1").target.digest == image.digest


def test_missing_file_of_a_missing_blob_is_said(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #6075: what is neither a file nor stored is an error, and no image appears."""
    with failing(grpc.StatusCode.NOT_FOUND, "source-not-found"):
        manager.load_again(image)

    assert not manager.image_exists(image.name)
    assert_never_stored(service.case.backing, *map(Digest.parse, image.blobs))


def test_media_types_survive_a_restart(
    service: Service, allowed: Path, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #1486, #3704, #3706, #3709, #3711, #3712: they were known in memory only."""
    manager.load(image)
    before = manager.media_types()

    with _restarted(service, allowed) as after_boot:
        assert after_boot.media_types() == before
    layers = {layer["digest"]: layer["mediaType"] for layer in json.loads(image.manifest)["layers"]}
    assert {digest: before[digest] for digest in layers} == layers
    assert before[image.digest] == image.root["mediaType"]


def test_empty_media_type_does_not_make_a_manifest_a_disk(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #4510, #4511: a manifest without media type was taken for a disk and wrapped.

    EVE e03b830be: a verified file whose media type nobody knew was dropped at the next start; here
    the content that was verified without a type is loaded.
    """
    for digest, data in image.blobs.items():
        manager.verified(data, digest)
    request = manager.load_request(image)
    for blob in request.blobs:
        assert blob.media_type == ""
    untyped = images_pb2.LoadImageRequest()
    untyped.CopyFrom(request)
    untyped.target.media_type = ""
    with failing(grpc.StatusCode.INVALID_ARGUMENT, "invalid-name"):
        last(service.images.Load(untyped))
    assert not manager.image_exists(image.name)

    assert last(service.images.Load(request)).image.target.digest == image.digest

    assert set(manager.media_types()) >= set(image.blobs)


_PATHS = [
    "../../etc/passwd",
    "sha256:../../x",
    "foo/bar",
    "not-hex",
    "a" * 32,
    "sha256:" + "g" * 64,
]
_BY_DIGEST: list[Callable[[Service, str], object]] = [
    lambda s, d: s.blobs.Get(blobs_pb2.GetBlobRequest(digest=d)),
    lambda s, d: s.blobs.Exists(blobs_pb2.BlobExistsRequest(digest=d)),
    lambda s, d: s.blobs.Missing(blobs_pb2.MissingBlobsRequest(digests=[d])),
    lambda s, d: list(s.blobs.Read(blobs_pb2.ReadBlobRequest(digest=d))),
    lambda s, d: list(s.blobs.Remove(blobs_pb2.RemoveBlobsRequest(digests=[d], force=True))),
    lambda s, d: s.blobs.Pin(blobs_pb2.PinBlobRequest(digest=d, owner="o", reason="r")),
    lambda s, d: s.blobs.Children(blobs_pb2.BlobChildrenRequest(digest=d)),
    lambda s, d: list(
        s.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(s.allowed / "x"), digest=d))
    ),
    lambda s, d: s.images.Create(
        images_pb2.CreateImageRequest(name="n", target=types_pb2.Descriptor(digest=d))
    ),
    lambda s, d: list(
        s.images.Load(
            images_pb2.LoadImageRequest(
                name="n",
                target=types_pb2.Descriptor(digest=DIGEST),
                blobs=[images_pb2.LoadBlob(digest=d, content=b"x")],
            )
        )
    ),
]


@pytest.mark.parametrize("digest", _PATHS)
def test_digest_that_is_a_path_is_refused_everywhere(service: Service, digest: str) -> None:
    """EVE #6187: a digest from the configuration became part of a path unseen."""
    for ask in _BY_DIGEST:
        with failing(grpc.StatusCode.INVALID_ARGUMENT, "invalid-name"):
            ask(service, digest)


def test_pin_is_kept_across_a_restart(
    service: Service, allowed: Path, manager: VolumeManager
) -> None:
    """EVE #1872, #6085: what was to be kept for a while was forgotten at reboot."""
    path = manager.verified(DATA, DIGEST)
    last(service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path))))

    with _restarted(service, allowed) as after_boot:
        after_boot.collect_garbage()
        assert after_boot.blob_exists(DIGEST)


def test_changed_content_under_a_name_is_taken(manager: VolumeManager, image: BuiltImage) -> None:
    """EVE #4769: a content tree that changed was ignored."""
    changed = _image().named(image.name)
    manager.load(image)

    record = manager.load(changed)

    manager.collect_garbage()
    assert record.target.digest == changed.digest
    assert manager.holes(image.name) == []
    assert not manager.blob_exists(image.digest)


def test_corrupt_file_is_refused_and_the_next_one_taken(
    service: Service, manager: VolumeManager, image: BuiltImage
) -> None:
    """EVE #4455, #4768: one corrupt download failed for ever."""
    for digest, data in image.blobs.items():
        manager.verified(data, digest)
    layer = image.layers[1]
    manager.verified(layer.blob[:-1] + b"X", layer.digest)
    with failing(grpc.StatusCode.DATA_LOSS, "digest-mismatch"):
        manager.load_again(image)
    assert not manager.image_exists(image.name)
    assert not manager.blob_exists(layer.digest)

    manager.load(image)

    assert manager.holes(image.name) == []
    assert_nothing_left(service.case.backing)


def test_prune_during_an_upload_takes_nothing_of_it(
    service: Service, manager: VolumeManager, image: BuiltImage, tmp_path: Path
) -> None:
    """EVE 7da66d210: a collection deleted the file of a transfer that had just begun."""
    archive = image.write_oci_tar(tmp_path / "image.tar").read_bytes()

    service.images.Upload(tar_requests(archive, image.name, manager.prune_blobs))

    assert manager.holes(image.name) == []


def test_cancellation_after_the_end_undoes_nothing(
    service: Service, manager: VolumeManager
) -> None:
    """EVE 90dfac703: a transfer that was done was reported as cancelled."""
    path = manager.verified(DATA, DIGEST)
    steps = service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path)))
    assert any(step.HasField("ingested") for step in steps)

    steps.cancel()

    assert manager.blob_exists(DIGEST)


def test_files_of_the_downloader_are_its_own(service: Service) -> None:
    """EVE #1182: the volume manager deleted files of the downloader."""
    path = service.case.settings.layout.downloader / "unverified"
    path.write_bytes(DATA)
    request = blobs_pb2.IngestBlobRequest(path=str(path), move=True)

    with failing(grpc.StatusCode.PERMISSION_DENIED, "denied"):
        last(service.blobs.Ingest(request))

    assert path.read_bytes() == DATA
    path.unlink()


def test_blobs_that_a_foreign_lease_holds_are_not_pruned(
    service: Service, manager: VolumeManager
) -> None:
    """EVE 26e8dbedf: the collection forgot one kind of owner."""
    path = manager.verified(DATA, DIGEST)
    last(service.blobs.Ingest(blobs_pb2.IngestBlobRequest(path=str(path))))
    leases, lease = service.case.containerd.leases, LeaseID("somebody-else")
    leases.create(lease, {})
    leases.add_resource(lease, LeaseResource("content", DIGEST))
    service.blobs.Unpin(blobs_pb2.UnpinBlobRequest(digest=DIGEST))

    manager.prune_blobs()
    manager.collect_garbage()
    assert manager.blob_exists(DIGEST)

    leases.delete(lease, sync=True)
    assert not manager.blob_exists(DIGEST)


_EMPTY: list[Callable[[Service], object]] = [
    lambda s: s.blobs.Get(blobs_pb2.GetBlobRequest()),
    lambda s: list(s.blobs.Ingest(blobs_pb2.IngestBlobRequest())),
    lambda s: s.blobs.Upload(iter([])),
    lambda s: s.blobs.Children(blobs_pb2.BlobChildrenRequest()),
    lambda s: s.images.Create(images_pb2.CreateImageRequest()),
    lambda s: s.images.Replace(images_pb2.ReplaceImageRequest()),
    lambda s: list(s.images.Load(images_pb2.LoadImageRequest())),
    lambda s: list(s.images.Load(images_pb2.LoadImageRequest(name="n"))),
    lambda s: s.images.Upload(iter([])),
    lambda s: list(s.volumes.Prepare(volumes_pb2.PrepareVolumeRequest())),
    lambda s: s.volumes.Activate(volumes_pb2.ActivateVolumeRequest()),
]


@pytest.mark.parametrize("number", range(len(_EMPTY)))
def test_tree_without_blobs_or_digest_is_refused(service: Service, number: int) -> None:
    """EVE 16cb04a54, afd753beb: the first of no blobs was looked at, and the process crashed."""
    with pytest.raises(grpc.RpcError) as raised:
        _EMPTY[number](service)

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(raised.value).domain == "cas.lfedge.org"
    service.store.Version(store_pb2.VersionRequest())
