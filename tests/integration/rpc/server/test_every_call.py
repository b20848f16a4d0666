"""Every call once, through a real socket, to a real containerd, with gRPC's own stubs."""

import hashlib
import io
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cas import __version__
from cas._gen.cas.v1 import (
    blobs_pb2,
    images_pb2,
    store_pb2,
    types_pb2,
    vault_pb2,
    volumes_pb2,
)
from cas.model.digest import Digest
from cas.rpc.limits import MESSAGE_BYTES, PIECE_BYTES
from tests.support.images import BuiltImage, layered_image
from tests.support.rpc import Service, error_info, failing, last
from tests.support.volumes import volume_name

DATA = b"content of a blob" * 100_000
DIGEST = str(Digest.of(DATA))


@pytest.fixture
def image() -> BuiltImage:
    name = uuid.uuid4().hex
    return layered_image(2, name=f"example.com/test/{name}:1", seed=name)


@pytest.fixture
def imported(service: Service, image: BuiltImage) -> BuiltImage:
    """An image in the store."""
    path = image.write_oci_tar(service.allowed / "image.tar")
    request = images_pb2.ImportImageRequest(path=str(path))
    answer = last(service.images.Import(request))
    assert [record.name for record in answer.imported.images] == [image.name]
    return image


@pytest.fixture
def stored(service: Service) -> str:
    """A pinned blob in the store."""
    path = service.allowed / "blob"
    path.write_bytes(DATA)
    request = blobs_pb2.IngestBlobRequest(
        path=str(path), digest=DIGEST, size=len(DATA), media_type="application/x-test"
    )
    answer = last(service.blobs.Ingest(request))
    assert (answer.ingested.digest, answer.ingested.size) == (DIGEST, len(DATA))
    assert (answer.ingested.way, answer.ingested.created) == ("seed", True)
    return DIGEST


@pytest.fixture
def prepared(service: Service, imported: BuiltImage) -> str:
    """A mounted volume."""
    name = str(volume_name())
    request = volumes_pb2.PrepareVolumeRequest(name=name, image=imported.name, activate=True)
    volume = last(service.volumes.Prepare(request)).volume
    assert (volume.name, volume.state) == (name, volumes_pb2.VOLUME_STATE_ACTIVE)
    return name


def _descriptor(image: BuiltImage) -> types_pb2.Descriptor:
    return types_pb2.Descriptor(
        media_type=str(image.root["mediaType"]),
        digest=image.digest,
        size=int(image.root["size"]),
    )


def test_version_says_who_answers(service: Service) -> None:
    """A caller that also has the store at hand can compare."""
    answer = service.store.Version(store_pb2.VersionRequest())

    settings = service.case.settings
    assert answer.cas == __version__
    assert answer.containerd == service.case.containerd.facts.version_text
    assert answer.persist == str(settings.persist)
    assert (answer.namespace, answer.snapshotter) == (settings.namespace, "overlayfs")
    assert answer.address == str(settings.socket)
    assert list(answer.allowed_directories) == [
        str(settings.layout.verifier),
        str(service.allowed),
    ]
    assert answer.message_bytes == MESSAGE_BYTES
    assert answer.platform.os == "linux"


def test_blob_is_ingested_listed_and_read(service: Service, stored: str) -> None:
    """What came in is there, with its media type, and reads as it was."""
    record = service.blobs.Get(blobs_pb2.GetBlobRequest(digest=stored))
    chunks = list(service.blobs.Read(blobs_pb2.ReadBlobRequest(digest=stored)))
    listed = [
        blob.digest
        for answer in service.blobs.List(
            blobs_pb2.ListBlobsRequest(filters=["media-type=application/x-test"])
        )
        for blob in answer.blobs
    ]
    types = {
        blob.digest: blob.media_type
        for answer in service.blobs.ListMediaTypes(blobs_pb2.ListMediaTypesRequest())
        for blob in answer.blobs
    }

    assert (record.digest, record.size) == (stored, len(DATA))
    assert record.media_type == "application/x-test"
    assert record.created.seconds > 0
    assert b"".join(chunk.data for chunk in chunks) == DATA
    assert listed == [stored]
    assert types[stored] == "application/x-test"


def test_range_of_a_blob_is_read(service: Service, stored: str) -> None:
    """As asked, and no more."""
    request = blobs_pb2.ReadBlobRequest(digest=stored, offset=1_000_000, length=300_000)

    chunks = [chunk.data for chunk in service.blobs.Read(request)]

    assert b"".join(chunks) == DATA[1_000_000:1_300_000]


def test_blob_that_exists_is_success_without_its_file(service: Service, stored: str) -> None:
    """EVE #6075: the verified file was deleted with another content tree."""
    request = blobs_pb2.IngestBlobRequest(path=str(service.allowed / "gone"), digest=stored)

    ingested = last(service.blobs.Ingest(request)).ingested

    assert (ingested.way, ingested.created) == ("existed", False)


def test_moved_file_is_gone_when_the_blob_is_stored(service: Service) -> None:
    """From the verifier's directory as from any other that is allowed."""
    path = service.case.settings.layout.verifier / "verified" / "x"
    path.write_bytes(DATA)
    request = blobs_pb2.IngestBlobRequest(path=str(path), digest=DIGEST, move=True)

    assert last(service.blobs.Ingest(request)).ingested.created

    assert not path.exists()
    assert service.blobs.Exists(blobs_pb2.BlobExistsRequest(digest=DIGEST)).exists


def test_uploaded_blob_is_stored(service: Service) -> None:
    """Header, then chunks."""

    def requests() -> Iterator[blobs_pb2.UploadBlobRequest]:
        header = blobs_pb2.UploadBlobHeader(
            name="my file", digest=DIGEST, size=len(DATA), labels={"a": "b"}
        )
        yield blobs_pb2.UploadBlobRequest(header=header)
        for start in range(0, len(DATA), PIECE_BYTES):
            yield blobs_pb2.UploadBlobRequest(data=DATA[start : start + PIECE_BYTES])
        yield blobs_pb2.UploadBlobRequest(end=types_pb2.UploadEnd())

    ingested = service.blobs.Upload(requests())

    assert (ingested.digest, ingested.size, ingested.created) == (DIGEST, len(DATA), True)
    record = service.blobs.Get(blobs_pb2.GetBlobRequest(digest=DIGEST))
    assert record.labels["a"] == "b"


def test_upload_that_does_not_say_that_it_is_complete_stores_nothing(service: Service) -> None:
    """Half of a file that a vanished caller had sent would else be a blob like any other."""
    requests = [
        blobs_pb2.UploadBlobRequest(header=blobs_pb2.UploadBlobHeader()),
        blobs_pb2.UploadBlobRequest(data=DATA[:1000]),
    ]

    with failing(grpc.StatusCode.INVALID_ARGUMENT, "usage"):
        service.blobs.Upload(iter(requests))

    half = blobs_pb2.BlobExistsRequest(digest=str(Digest.of(DATA[:1000])))
    assert not service.blobs.Exists(half).exists


def test_missing_and_existing_blobs_are_told_apart(service: Service, stored: str) -> None:
    """One by one, and many at once, in order."""
    absent = [str(Digest.of(str(number).encode())) for number in range(100)]
    asked = blobs_pb2.MissingBlobsRequest(digests=[*absent[:50], stored, *absent[50:]])

    assert list(service.blobs.Missing(asked).digests) == absent
    assert service.blobs.Exists(blobs_pb2.BlobExistsRequest(digest=stored)).exists
    assert not service.blobs.Exists(blobs_pb2.BlobExistsRequest(digest=absent[0])).exists


def test_labels_of_a_blob_are_changed(service: Service, stored: str) -> None:
    """Set, left and removed."""
    service.blobs.UpdateLabels(
        blobs_pb2.UpdateBlobLabelsRequest(digest=stored, set={"a": "1", "b": "2"})
    )
    blob = service.blobs.UpdateLabels(
        blobs_pb2.UpdateBlobLabelsRequest(digest=stored, set={"c": "3"}, remove=["a"])
    )

    assert {key: blob.labels.get(key) for key in "abc"} == {"a": None, "b": "2", "c": "3"}


def test_pin_keeps_a_blob_and_unpin_lets_it_go(service: Service, stored: str) -> None:
    """As the collector sees it."""
    request = blobs_pb2.PinBlobRequest(digest=stored, owner="me", reason="because")
    assert "containerd.io/gc.root" in service.blobs.Pin(request).labels
    collect = store_pb2.CollectGarbageRequest()
    exists = blobs_pb2.BlobExistsRequest(digest=stored)
    service.store.CollectGarbage(collect)
    assert service.blobs.Exists(exists).exists

    service.blobs.Unpin(blobs_pb2.UnpinBlobRequest(digest=stored))
    service.store.CollectGarbage(collect)

    assert not service.blobs.Exists(exists).exists


def test_removal_of_blobs_tells_of_each(
    service: Service, stored: str, imported: BuiltImage
) -> None:
    """There, not there, in use: each has its outcome, and the call goes on."""
    layer, absent = imported.layers[0].digest, str(Digest.of(b"absent"))
    request = blobs_pb2.RemoveBlobsRequest(digests=[stored, absent, layer])

    outcomes = {answer.digest: answer for answer in service.blobs.Remove(request)}

    assert outcomes[stored].removed
    assert outcomes[absent].WhichOneof("outcome") == "removed"
    assert not outcomes[absent].removed
    assert outcomes[layer].error.reference == "in-use"
    assert outcomes[layer].error.kind == "conflict"
    assert imported.digest in outcomes[layer].error.details["referrers"]


def test_children_of_a_manifest_are_its_config_and_layers(
    service: Service, imported: BuiltImage
) -> None:
    """In the order in which it names them."""
    answer = service.blobs.Children(blobs_pb2.BlobChildrenRequest(digest=imported.digest))

    assert [child.digest for child in answer.children] == [
        imported.config_digest,
        *(layer.digest for layer in imported.layers),
    ]


def test_verification_of_a_blob_ends_with_its_record(service: Service, stored: str) -> None:
    """Its bytes were read."""
    steps = list(service.blobs.Verify(blobs_pb2.VerifyBlobRequest(digest=stored)))

    assert steps[-1].blob.digest == stored


def test_prune_of_blobs_plans_and_then_does_what_was_planned(service: Service, stored: str) -> None:
    """A dry run names a plan, which is done as it is, and may be repeated."""
    filters = ["media-type=application/x-test"]
    steps = list(service.blobs.Prune(types_pb2.PruneRequest(filters=filters, dry_run=True)))
    planned = [each.name for step in steps for each in step.planned.objects]
    plan_id = steps[-1].result.plan_id
    exists = blobs_pb2.BlobExistsRequest(digest=stored)
    assert stored in planned
    assert service.blobs.Exists(exists).exists

    for _ in range(2):
        steps = list(service.blobs.Prune(types_pb2.PruneRequest(plan_id=plan_id)))
        removed = [each.name for step in steps for each in step.removed.objects]
        assert stored in removed
        assert steps[-1].result.free_after > 0
        assert not service.blobs.Exists(exists).exists


def test_image_is_created_replaced_tagged_listed_and_removed(
    service: Service, imported: BuiltImage
) -> None:
    """The life of a name."""
    target, name = _descriptor(imported), "example.com/other:1"
    images = service.images
    created = images.Create(images_pb2.CreateImageRequest(name=name, target=target))
    again = images.Create(images_pb2.CreateImageRequest(name=name, target=target))
    replaced = images.Replace(images_pb2.ReplaceImageRequest(name=name, target=target))
    tagged = images.Tag(images_pb2.TagImageRequest(name=name, new_name="example.com/third:1"))
    for image in (created, again, replaced, tagged):
        assert image.target.digest == imported.digest

    request = images_pb2.ListImagesRequest(filters=["reference=example.com/*:1"])
    listed = {image.name for answer in images.List(request) for image in answer.images}
    assert listed == {imported.name, name, "example.com/third:1"}
    assert images.Get(images_pb2.GetImageRequest(name=name)).name == name

    remove = images_pb2.RemoveImageRequest(name=name)
    assert images.Remove(remove).removed
    assert not images.Remove(remove).removed
    assert not images.Exists(images_pb2.ImageExistsRequest(name=name)).exists
    assert images.Exists(images_pb2.ImageExistsRequest(name=imported.name)).exists


def test_image_is_loaded_from_files_and_bytes(service: Service, image: BuiltImage) -> None:
    """EVE's IngestBlobsAndCreateImage: blobs and name as one operation."""
    blobs = []
    for number, (digest, data) in enumerate(image.blobs.items()):
        path = service.allowed / str(number)
        path.write_bytes(data)
        blobs.append(
            images_pb2.LoadBlob(digest=digest, path=str(path), move=True)
            if number % 2
            else images_pb2.LoadBlob(digest=digest, content=data, size=len(data))
        )
    target = _descriptor(image)
    target.size = 0
    request = images_pb2.LoadImageRequest(name=image.name, target=target, blobs=blobs)

    record = last(service.images.Load(request)).image

    service.store.CollectGarbage(store_pb2.CollectGarbageRequest())
    assert record.target.size == len(image.manifest)
    assert (
        service.images.Inspect(
            images_pb2.InspectImageRequest(name=image.name)
        ).resolved.manifest.digest
        == image.digest
    )
    assert not any(Path(blob.path).exists() for blob in blobs if blob.path)


def test_inspection_of_an_image_gives_documents_and_layers(
    service: Service, imported: BuiltImage
) -> None:
    """Everything there is to know."""
    answer = service.images.Inspect(images_pb2.InspectImageRequest(name=imported.name))

    assert answer.image.name == imported.name
    assert answer.resolved.config == imported.config
    assert answer.resolved.manifest_document == imported.manifest
    assert [layer.diff_id for layer in answer.resolved.layers] == imported.diff_ids
    assert [list(platform.missing) for platform in answer.platforms] == [[]]
    assert (answer.problem, answer.unpacked) == ("", False)


def test_exported_image_can_be_uploaded_again(service: Service, imported: BuiltImage) -> None:
    """The tar that comes out goes in."""
    request = images_pb2.ExportImageRequest(name=imported.name)
    chunks = [answer.data for answer in service.images.Export(request)]
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert f"blobs/sha256/{imported.digest[7:]}" in tar.getnames()

    def requests() -> Iterator[images_pb2.UploadImageRequest]:
        header = images_pb2.UploadImageHeader(name="example.com/again:1", source="the test")
        yield images_pb2.UploadImageRequest(header=header)
        for chunk in chunks:
            yield images_pb2.UploadImageRequest(data=chunk)
        yield images_pb2.UploadImageRequest(end=types_pb2.UploadEnd())

    [image] = service.images.Upload(requests()).images

    assert (image.name, image.target.digest) == ("example.com/again:1", imported.digest)
    docker = images_pb2.ExportImageRequest(name=imported.name, format="docker")
    assert hashlib.sha256(b"".join(a.data for a in service.images.Export(docker))).digest()


def test_prune_of_images_removes_the_unused(service: Service, imported: BuiltImage) -> None:
    """And says what became of each."""
    steps = list(service.images.Prune(types_pb2.PruneRequest()))

    removed = {each.name for step in steps for each in step.removed.objects}
    assert imported.name in removed
    assert imported.layers[0].digest in removed
    assert steps[-1].WhichOneof("step") == "result"


def test_volume_is_prepared_mounted_measured_and_removed(
    service: Service, prepared: str, imported: BuiltImage
) -> None:
    """The life of a volume; repetitions change nothing."""
    volumes = service.volumes
    volume = volumes.Get(volumes_pb2.GetVolumeRequest(name=prepared))
    assert volume.record.image == imported.name
    (Path(volume.rootfs) / "mine").write_bytes(b"x" * 100_000)

    again = volumes_pb2.PrepareVolumeRequest(name=prepared, image=imported.name)
    assert last(volumes.Prepare(again)).volume.state == volumes_pb2.VOLUME_STATE_ACTIVE
    usage = volumes.Usage(volumes_pb2.VolumeUsageRequest(name=prepared))
    assert usage.own_bytes >= 100_000
    assert usage.shared_bytes > 0

    deactivate = volumes_pb2.DeactivateVolumeRequest(name=prepared)
    for _ in range(2):
        assert volumes.Deactivate(deactivate).state == volumes_pb2.VOLUME_STATE_INACTIVE
    activate = volumes_pb2.ActivateVolumeRequest(name=prepared)
    for _ in range(2):
        assert volumes.Activate(activate).state == volumes_pb2.VOLUME_STATE_ACTIVE
    assert (Path(volume.rootfs) / "mine").stat().st_size == 100_000

    listed = volumes.List(volumes_pb2.ListVolumesRequest())
    assert [each.name for answer in listed for each in answer.volumes] == [prepared]
    remove = volumes_pb2.RemoveVolumeRequest(name=prepared)
    assert volumes.Remove(remove).removed
    assert not volumes.Remove(remove).removed


def test_all_volumes_are_unmounted_and_mounted(service: Service, prepared: str) -> None:
    """As before and after a reboot; each has its outcome."""
    volumes = service.volumes
    deactivated = volumes.DeactivateAll(volumes_pb2.DeactivateAllVolumesRequest())
    assert [(each.name, each.HasField("error")) for each in deactivated] == [(prepared, False)]
    get = volumes_pb2.GetVolumeRequest(name=prepared)
    assert volumes.Get(get).state == volumes_pb2.VOLUME_STATE_INACTIVE

    activated = volumes.ActivateAll(volumes_pb2.ActivateAllVolumesRequest())
    assert [(each.name, each.HasField("error")) for each in activated] == [(prepared, False)]
    assert volumes.Get(get).state == volumes_pb2.VOLUME_STATE_ACTIVE


def test_usage_adds_up(service: Service, prepared: str, imported: BuiltImage) -> None:
    """Every list comes."""
    steps = list(service.store.Usage(store_pb2.UsageRequest()))

    assert sum(row.size for step in steps for row in step.entries.entries) > 0
    assert [row.name for step in steps for row in step.volumes.volumes] == [prepared]
    assert imported.name in [row.name for step in steps for row in step.images.images]
    assert any(row.capacity for step in steps for row in step.file_systems.file_systems)


def test_check_finds_damage_and_repairs_it(service: Service, stored: str) -> None:
    """Findings, what became of them, and how far reading came."""
    assert service.case.backing.blobs_directory is not None
    file = service.case.backing.blobs_directory / stored[7:]
    file.chmod(0o644)
    with file.open("r+b") as damaged:
        damaged.write(b"X")
    file.chmod(0o444)

    request = store_pb2.CheckRequest(read_data=True, max_duration=Duration(seconds=600))
    found = list(service.store.Check(request))
    fixed = list(service.store.Check(store_pb2.CheckRequest(read_data=True, fix=True)))

    [finding] = [step.finding for step in found if step.HasField("finding")]
    assert (finding.problem, finding.object, finding.severity) == (
        "blob-content",
        stored,
        "error",
    )
    assert found[-1].scrub.complete
    [repaired] = [step.repaired for step in fixed if step.HasField("repaired")]
    assert (repaired.finding.object, repaired.done) == (stored, True)
    assert not [step for step in fixed if step.HasField("finding")]


def test_why_names_what_keeps_an_object(service: Service, imported: BuiltImage) -> None:
    """A chain from the image down to the layer."""
    answer = service.store.Why(store_pb2.WhyRequest(object=imported.layers[1].digest))

    [explanation] = answer.explanations
    assert [keeper.kind for keeper in explanation.chain] == ["image", "blob", "blob"]
    assert [root.name for root in explanation.roots] == [imported.name]


def test_prune_of_the_store_reaches_a_goal(service: Service, imported: BuiltImage) -> None:
    """A goal of nothing at all says what holds the rest; none at all is another thing."""
    request = types_pb2.PruneRequest(keep_at_most=0, dry_run=True)
    with_goal = list(service.store.Prune(request))[-1].result
    without = list(service.store.Prune(types_pb2.PruneRequest(dry_run=True)))[-1].result

    assert with_goal.HasField("needed")
    assert not without.HasField("needed")


def test_recovery_runs(service: Service, prepared: str) -> None:
    """And leaves alone what is whole."""
    service.store.Recover(store_pb2.RecoverRequest())

    assert service.volumes.Get(volumes_pb2.GetVolumeRequest(name=prepared)).name == prepared


def test_events_tell_what_happens_from_now_on(service: Service, image: BuiltImage) -> None:
    """The first message comes at once; only the kinds that were asked for follow."""
    events = service.store.Events(store_pb2.EventsRequest(kinds=["image-created"]))
    assert next(events).kind == ""

    path = image.write_oci_tar(service.allowed / "image.tar")
    last(service.images.Import(images_pb2.ImportImageRequest(path=str(path))))

    event = next(events)
    assert (event.kind, event.object) == ("image-created", image.name)
    assert event.time.seconds > 0
    events.cancel()


def test_vaults_that_are_plain_are_told_and_have_no_key(service: Service) -> None:
    """What is encrypted has tests of its own, with a disk and a TPM."""
    vault = service.vault
    found = vault.Status(vault_pb2.VaultStatusRequest()).vaults
    assert (found[0].name, found[0].state) == ("vault", "plain")
    vault.Unlock(vault_pb2.UnlockVaultRequest(names=["vault"]))
    key = bytes(32)
    for call in (
        lambda: vault.Lock(vault_pb2.LockVaultRequest()),
        lambda: vault.Reseal(vault_pb2.ResealVaultRequest()),
        lambda: vault.Recover(vault_pb2.RecoverVaultRequest(name="vault", key=key)),
    ):
        with failing(grpc.StatusCode.FAILED_PRECONDITION, "vault-not-encrypted"):
            call()
    with failing(grpc.StatusCode.FAILED_PRECONDITION, "key-mismatch"):
        vault.Recover(vault_pb2.RecoverVaultRequest(name="vault", key=key[1:]))


def test_wait_returns_when_nothing_of_the_name_runs(service: Service) -> None:
    """At once, if nobody made such a call."""
    service.store.Wait(store_pb2.WaitRequest(call=str(uuid.uuid4())))


@pytest.mark.parametrize(
    ("ask", "reference"),
    [
        (lambda s: s.blobs.Get(blobs_pb2.GetBlobRequest(digest=DIGEST)), "blob-not-found"),
        (lambda s: s.images.Get(images_pb2.GetImageRequest(name="nobody")), "image-not-found"),
        (
            lambda s: s.volumes.Get(volumes_pb2.GetVolumeRequest(name=str(volume_name()))),
            "volume-not-found",
        ),
        (lambda s: s.store.Why(store_pb2.WhyRequest(object="nothing")), "not-found"),
        (
            lambda s: list(s.store.Prune(types_pb2.PruneRequest(plan_id="no-such"))),
            "not-found",
        ),
    ],
)
def test_what_is_not_there_is_not_found(
    service: Service, ask: Callable[[Service], object], reference: str
) -> None:
    """With the reference of just what is missing."""
    with failing(grpc.StatusCode.NOT_FOUND, reference):
        ask(service)


def test_blob_that_is_not_there_is_named_in_the_details(service: Service) -> None:
    """So that nobody has to read the message for it."""
    with failing(grpc.StatusCode.NOT_FOUND, "blob-not-found") as error:
        service.blobs.Get(blobs_pb2.GetBlobRequest(digest=DIGEST))

    assert error_info(error()).metadata["digest"] == DIGEST
