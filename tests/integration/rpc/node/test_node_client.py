"""The service as a stranger in another language sees it: Node's gRPC with protos/ as they are."""

import os
import uuid
from pathlib import Path

import pytest

from cas._gen.cas.v1 import blobs_pb2, images_pb2, store_pb2, vault_pb2, volumes_pb2
from cas.model.digest import Digest
from tests.support.disks import change_disk, content_of
from tests.support.images import BuiltImage, layered_image
from tests.support.node import Node, NodeError
from tests.support.rpc import Service
from tests.support.stores import assert_never_stored, assert_nothing_left, own_blobs
from tests.support.volumes import volume_name
from tests.support.waiting import wait_for

pytestmark = pytest.mark.once

DATA = os.urandom(5_000_000)
DIGEST = Digest.of(DATA)
ABSENT = Digest.of(b"absent")
SERVICES = ["cas.v1.Blobs", "cas.v1.Images", "cas.v1.Volumes", "cas.v1.Store"]
ALWAYS = "cas.v1.Vault"


@pytest.fixture
def node(service: Service) -> Node:
    """The client."""
    return Node(service.socket)


@pytest.fixture
def source(allowed: Path) -> Path:
    """A file of the blob's bytes that the service may read."""
    path = allowed / "blob"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def stored(service: Service, source: Path) -> Digest:
    """The blob, in the store."""
    service.case.blobs.ingest(source)
    return DIGEST


@pytest.fixture
def imported(service: Service, tmp_path: Path) -> BuiltImage:
    """An image, in the store."""
    image = layered_image(2, seed=uuid.uuid4().hex)
    service.case.images.import_archive(image.write_oci_tar(tmp_path / "image.tar"))
    return image


def test_node_asks_for_the_version_and_is_answered(node: Node, service: Service) -> None:
    """One request, one response; fields have their names of protos/."""
    version = node.run("version")

    assert version["namespace"] == service.case.settings.namespace
    assert version["persist"] == str(service.case.settings.persist)
    assert version["platform"]["os"] == "linux"


def test_node_ingests_a_file_and_hears_of_progress(node: Node, source: Path) -> None:
    """A stream of reports, and the result at its end."""
    answer = node.run("ingest", path=str(source), digest=str(DIGEST))

    assert answer["ingested"]["digest"] == str(DIGEST)
    assert answer["ingested"]["created"] is True
    assert answer["progress"], "nobody told how far it was"
    assert {report["action"] for report in answer["progress"]} <= {"ingest", ""}


def test_node_lists_blobs_and_gets_all_of_them(
    node: Node, stored: Digest, imported: BuiltImage
) -> None:
    """Each once, whether pinned or part of an image."""
    listed = node.run("list")

    assert len(listed) == len(set(listed))
    assert {str(stored), *imported.blobs} <= set(listed)


def test_node_reads_a_blob_and_has_its_bytes(node: Node, stored: Digest) -> None:
    """A stream of chunks, hashed by Node."""
    assert node.run("read", digest=str(stored)) == {"size": len(DATA), "digest": str(DIGEST)}


def test_node_reads_a_range_and_has_just_that(node: Node, stored: Digest) -> None:
    """Across the bounds of chunks."""
    part = DATA[1_000_000:3_500_000]

    answer = node.run("read", digest=str(stored), offset=1_000_000, length=len(part))

    assert answer == {"size": len(part), "digest": str(Digest.of(part))}


def test_node_uploads_a_blob_and_it_is_stored(node: Node, service: Service, source: Path) -> None:
    """A stream of requests: header, chunks, end."""
    answer = node.run("uploadBlob", path=str(source), digest=str(DIGEST))

    assert (answer["digest"], answer["size"]) == (str(DIGEST), len(DATA))
    record = service.blobs.Get(blobs_pb2.GetBlobRequest(digest=str(DIGEST)))
    assert record.media_type == "application/x-node"
    assert_nothing_left(service.case.backing)


def test_node_ends_an_upload_half_way_and_nothing_is_stored(node: Node, service: Service) -> None:
    """A stream that ends without saying so was broken off."""
    with pytest.raises(NodeError) as raised:
        node.run("endUploadHalfWay")

    assert raised.value.info["domain"] == "cas.lfedge.org"
    assert own_blobs(service.case.backing) == set()
    assert_nothing_left(service.case.backing)


def test_node_uploads_an_image_prepares_a_volume_and_it_can_be_used(
    node: Node, tmp_path: Path
) -> None:
    """From a tar in the caller's hands to a mounted root file system."""
    image = layered_image(2, seed=uuid.uuid4().hex)
    archive = image.write_oci_tar(tmp_path / "image.tar")
    name = f"{uuid.uuid4()}#0"

    [record] = node.run("uploadImage", path=str(archive), name="example.com/node:1")["images"]
    answer = node.run("prepare", name=name, image=record["name"])

    assert record["target"]["digest"] == image.digest
    volume = answer["volume"]
    assert (volume["name"], volume["state"]) == (name, "VOLUME_STATE_ACTIVE")
    assert volume["record"]["rootDigest"] == image.digest
    assert (Path(volume["rootfs"]) / "top").read_bytes() == b"1\n"
    assert "unpack" in {report["action"] for report in answer["progress"]}


def test_node_takes_and_returns_to_snapshots_of_a_disk_and_a_container_together(
    node: Node, imported: BuiltImage, service: Service, tmp_path: Path
) -> None:
    """Of both or of none; what is refused says why, and a replaced disk is gone with its own."""
    container, disk = str(volume_name()), str(volume_name())
    later = disk.replace("#0", "#1")
    root = Path(node.run("prepare", name=container, image=imported.name)["volume"]["rootfs"])
    blank = {"size": 2**20, "format": "DISK_FORMAT_QCOW2"}
    path = Path(node.run("prepareDisk", name=disk, **blank)["rootfs"])
    both = {"volumes": [container, disk], "snapshot": "one"}
    with path.open("rb"), pytest.raises(NodeError) as raised:
        node.run("takeSnapshots", quiesced=True, **both)
    assert raised.value.info["reason"] == "in-use"
    assert node.run("listSnapshots", volume=container) == []

    taken = node.run("takeSnapshots", quiesced=True, **both)
    (root / "note").write_text("later")
    change_disk(path, "qcow2", 7)
    assert [each["volume"] for each in taken] == [container, disk]
    assert node.run("rollBack", quiesced=True, **both) == taken
    assert not (root / "note").exists()
    assert content_of(path, "qcow2", tmp_path) == bytes(2**20)
    assert node.run("listSnapshots", volume=disk) == [taken[1]]
    assert node.run("removeSnapshot", volume=container, snapshot="one", quiesced=True)
    assert node.run("prepareDisk", name=later, replace=True, **blank)["disk"]["snapshots"] == 0
    with pytest.raises(NodeError) as raised:
        node.run("rollBack", quiesced=True, **both)
    assert raised.value.code == "NOT_FOUND"
    assert [str(status.name) for status in service.case.volumes.iter_disks()] == [later]


def test_node_exports_an_image_and_it_can_be_imported(
    node: Node, service: Service, imported: BuiltImage, tmp_path: Path
) -> None:
    """The bytes that Node received are an archive."""
    archive = tmp_path / "exported.tar"
    node.run("exportImage", name=imported.name, path=str(archive))

    [again] = service.case.images.import_archive(archive, name="example.com/again:1")

    assert str(again.target.digest) == imported.digest


def test_node_prepares_one_volume_many_times_at_once_and_all_succeed(
    node: Node, service: Service, imported: BuiltImage
) -> None:
    """It is prepared once; nobody is told of a conflict."""
    name = f"{uuid.uuid4()}#0"

    answers = node.run("prepareTogether", name=name, image=imported.name, callers=64)

    assert answers == [name] * 64
    listed = list(service.volumes.List(volumes_pb2.ListVolumesRequest()))
    assert [volume.name for answer in listed for volume in answer.volumes] == [name]
    assert_nothing_left(service.case.backing)


def test_node_is_told_why_a_call_failed(node: Node) -> None:
    """Status, reference and details, without reading a message's text."""
    with pytest.raises(NodeError) as raised:
        node.run("getBlob", digest=str(ABSENT))

    assert raised.value.code == "NOT_FOUND"
    info = raised.value.info
    assert (info["reason"], info["domain"]) == ("blob-not-found", "cas.lfedge.org")
    assert info["metadata"]["kind"] == "not-found"
    assert info["metadata"]["temporary"] == "false"
    assert str(ABSENT) in raised.value.message


def test_node_is_told_which_bytes_were_expected(node: Node, service: Service, source: Path) -> None:
    """An upload of other bytes than claimed leaves nothing; the error has both digests."""
    with pytest.raises(NodeError) as raised:
        node.run("uploadBlob", path=str(source), digest=str(ABSENT))

    assert (raised.value.code, raised.value.info["reason"]) == ("DATA_LOSS", "digest-mismatch")
    assert raised.value.info["metadata"]["expected"] == str(ABSENT)
    assert raised.value.info["metadata"]["actual"] == str(DIGEST)
    assert_never_stored(service.case.backing, ABSENT, DIGEST)


def test_node_is_told_of_each_object_apart(
    node: Node, stored: Digest, imported: BuiltImage
) -> None:
    """One that goes, one that is not there, one that something needs."""
    layer = imported.layers[0].digest

    answers = node.run("removeBlobs", digests=[str(stored), str(ABSENT), layer])

    outcomes = {each["digest"]: each for each in answers}
    assert outcomes[str(stored)]["removed"] is True
    assert outcomes[str(ABSENT)]["removed"] is False
    assert outcomes[layer]["error"]["reference"] == "in-use"
    assert imported.digest in outcomes[layer]["error"]["details"]["referrers"]


def test_node_gives_a_deadline_and_nothing_is_left_when_it_is_over(
    node: Node, service: Service
) -> None:
    """The service notices without being told."""
    with pytest.raises(NodeError) as raised:
        node.run("deadline")

    assert raised.value.code == "DEADLINE_EXCEEDED"
    _assert_idle(service)


def test_node_cancels_a_stream_of_bytes_and_the_service_stops_reading(
    node: Node, service: Service, stored: Digest
) -> None:
    """After the first chunk; the connection stays good."""
    with pytest.raises(NodeError) as raised:
        node.run("cancelRead", digest=str(stored))

    assert raised.value.code == "CANCELLED"
    _assert_idle(service)


def test_node_cancels_an_upload_and_waits_until_it_is_undone(node: Node, service: Service) -> None:
    """After Store.Wait nothing is left, at once."""
    assert node.run("cancelUpload", digest=str(ABSENT)) == "CANCELLED"

    assert_nothing_left(service.case.backing)
    assert own_blobs(service.case.backing) == set()


def test_node_vanishes_while_it_sends_and_nothing_is_left(node: Node, service: Service) -> None:
    """A killed caller is one that cancelled."""
    with node.started("vanish", digest=str(ABSENT)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sending\n"
        wait_for(lambda: service.server.running)

    _assert_idle(service)


def test_node_listens_for_events_and_hears_them(node: Node, imported: BuiltImage) -> None:
    """The greeting first, then what happened after it; cancelling ends it."""
    heard = node.run("events", name=imported.name, newName="example.com/tagged:1")

    assert heard == [["", ""], ["image-created", "example.com/tagged:1"]]


def test_node_asks_for_health_and_hears_what_the_service_says(node: Node, service: Service) -> None:
    """The standard service, for the whole and for each part."""
    services = ["", *SERVICES]
    assert node.run("health", services=[*services, ALWAYS]) == ["SERVING"] * (len(services) + 1)

    service.server.set_serving(False)

    assert node.run("health", services=services) == ["NOT_SERVING"] * len(services)
    assert node.run("health", services=[ALWAYS]) == ["SERVING"]


def test_node_asks_what_the_vaults_are(node: Node, service: Service) -> None:
    """A caller in another language sees the words that the command prints."""
    layout = service.case.settings.layout

    vault, unsealed = node.run("vaults")

    assert (vault["name"], vault["path"]) == ("vault", str(layout.vault))
    assert (vault["state"], vault["unlockMethod"], vault["policy"]) == ("plain", "none", None)
    assert unsealed["name"] == "unsealed-vault"


def test_node_asks_by_reflection_and_learns_every_method(node: Node) -> None:
    """A tool without our .proto files finds the same methods as one that has them."""
    answer = node.run("reflection")

    declared = {
        service.full_name: {method.name for method in service.methods}
        for document in (blobs_pb2, images_pb2, volumes_pb2, store_pb2, vault_pb2)
        for service in document.DESCRIPTOR.services_by_name.values()
    }
    assert {name: set(methods) for name, methods in answer["methods"].items()} == declared
    assert "grpc.health.v1.Health" in answer["services"]


def _assert_idle(service: Service) -> None:
    """No call runs any more, and none has left anything."""
    wait_for(lambda: not service.server.running)
    assert_nothing_left(service.case.backing)
