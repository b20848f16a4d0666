"""Images from a registry into the store, whatever the registry does."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import (
    AgentError,
    DigestMismatchError,
    InterruptedOperationError,
    InvalidNameError,
    LayoutError,
    NoSpaceError,
    PlatformNotFoundError,
    SizeMismatchError,
    SourceNotFoundError,
)
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Platform
from cas.model.digest import Digest
from cas.model.labels import MEDIA_TYPE
from cas.model.progress import Progress
from cas.model.settings import Settings
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import Line, answer, resource
from tests.support.images import BuiltImage, build_image, build_index, layered_image
from tests.support.layers import file
from tests.support.pull_worker import agents_of
from tests.support.stores import blob_file, own_blobs, random_bytes
from tests.support.volumes import volume_name

MIB = 1024 * 1024


def big_image(size: int = 3 * MIB) -> BuiltImage:
    """An image of one layer that does not compress."""
    return build_image([[file("data", random_bytes(size))]])


def blobs_of(image: BuiltImage) -> set[Digest]:
    return {Digest.parse(digest) for digest in image.blobs}


def test_image_is_pulled_whole_and_makes_a_volume(case: Case, registry: HostileRegistry) -> None:
    """Name, bytes, media types, volume; and nothing else is left anywhere."""
    image = layered_image()
    reference = registry.publish(image)

    pulled = case.pull.image(reference)

    assert pulled.record.name == reference
    assert str(pulled.record.target.digest) == image.digest
    assert own_blobs(case.backing) == blobs_of(image)
    for digest, data in image.blobs.items():
        assert blob_file(case.backing, Digest.parse(digest)).read_bytes() == data
    layer = Digest.parse(image.layers[0].digest)
    assert case.backing.content.info(layer).labels[MEDIA_TYPE].endswith("tar+gzip")
    assert pulled.downloaded == sum(map(len, image.blobs.values()))
    assert left_by(case) == NOTHING
    volume = case.volumes.prepare(volume_name(), reference, activate=True)
    assert (volume.rootfs / "top").read_text() == "2\n"
    case.volumes.remove(volume.name)


def test_second_pull_downloads_nothing(case: Case, registry: HostileRegistry) -> None:
    """Only the tag is resolved again."""
    image = layered_image()
    reference = registry.publish(image)
    case.pull.image(reference)
    asked = registry.blob_requests(image.blobs)

    pulled = case.pull.image(reference)

    assert pulled.downloaded == 0
    assert registry.blob_requests(image.blobs) == asked
    assert left_by(case) == NOTHING


def test_tag_that_moved_takes_the_name_along(case: Case, registry: HostileRegistry) -> None:
    """The next pull of the same reference is another image."""
    reference = registry.publish(layered_image(seed="old"))
    case.pull.image(reference)
    new = layered_image(seed="new")
    registry.publish(new)

    pulled = case.pull.image(reference)

    assert str(pulled.record.target.digest) == new.digest
    assert str(case.images.get(reference).target.digest) == new.digest


def test_reference_with_a_digest_goes_by_the_digest(case: Case, registry: HostileRegistry) -> None:
    """Whatever the tag says today."""
    old = layered_image(seed="old")
    registry.publish(old)
    registry.publish(layered_image(seed="new"))

    pulled = case.pull.image(f"{registry.address}/app@{old.digest}")

    assert str(pulled.record.target.digest) == old.digest
    assert pulled.record.name == f"{registry.address}/app@{old.digest}"


def test_name_and_uuid_of_the_callers_choice_are_used(
    case: Case, registry: HostileRegistry
) -> None:
    """volumemgr has both."""
    pulled = case.pull.image(registry.publish(layered_image()), name="of my own")

    assert pulled.record.name == "of my own"
    assert case.images.exists("of my own")


def test_index_is_pulled_for_one_platform(case: Case, registry: HostileRegistry) -> None:
    """The others are marked as not fetched, and none of their bytes travels."""
    wanted = layered_image(platform="linux/arm64", seed="arm")
    other = layered_image(platform="linux/s390x", seed="s390x")
    index = build_index([other, wanted])
    reference = registry.publish(index)

    pulled = case.pull.image(reference, platform=Platform("linux", "arm64"))

    assert str(pulled.record.target.digest) == index.digest
    assert own_blobs(case.backing) == blobs_of(wanted) | {Digest.parse(index.digest)}
    assert registry.blob_requests(other.blobs) == 0
    assert left_by(case) == NOTHING


def test_second_platform_of_an_index_is_added(case: Case, registry: HostileRegistry) -> None:
    """A name may hold several platforms, pulled one after the other."""
    images = [layered_image(platform=f"linux/{each}", seed=each) for each in ("arm64", "s390x")]
    reference = registry.publish(build_index(images))

    for architecture in ("arm64", "s390x"):
        case.pull.image(reference, platform=Platform("linux", architecture))

    for architecture in ("arm64", "s390x"):
        resolved = case.images.resolve(reference, Platform("linux", architecture))
        assert resolved.config.platform == Platform("linux", architecture)


def test_index_without_the_platform_is_refused(case: Case, registry: HostileRegistry) -> None:
    """With the platforms that there are."""
    reference = registry.publish(build_index([layered_image(platform="linux/s390x")]))

    with pytest.raises(PlatformNotFoundError, match="it has linux/s390x"):
        case.pull.image(reference, platform=Platform("linux", "arm64"))

    assert not case.images.exists(reference)


@pytest.mark.parametrize("reference", ["", "UPPER/case", "a b"])
def test_reference_that_does_not_parse_is_refused_before_anything(
    reference: str, case: Case
) -> None:
    """No agent is started for it."""
    with pytest.raises(InvalidNameError):
        case.pull.image(reference)


def test_image_that_is_not_there_is_not_found(case: Case, registry: HostileRegistry) -> None:
    """And leaves nothing, a lease neither."""
    with pytest.raises(SourceNotFoundError):
        case.pull.image(f"{registry.address}/absent:v1")

    assert left_by(case) == NOTHING


def test_missing_directory_of_an_agent_is_named(case: Case, registry: HostileRegistry) -> None:
    """Before anything is asked of the registry."""
    directory = case.settings.layout.verified
    directory.rmdir()
    try:
        with pytest.raises(LayoutError, match="cas layout init"):
            case.pull.image(registry.publish(layered_image()))
    finally:
        from cas.store.directories import create_directories

        create_directories(case.settings)
    assert registry.requests == []


WRONG = {
    "other bytes": lambda data: resource(bytes(len(data)), etag=None),
    "too few bytes": lambda data: resource(data[:-1], etag=None),
    "one byte more": lambda data: resource(data + b"x", etag=None),
    "a login page": lambda data: answer(200, {"Content-Type": "text/html"}, b"<html>pay</html>"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_blob_that_is_wrong_once_is_downloaded_again(
    kind: str, case: Case, registry: HostileRegistry
) -> None:
    """The wrong bytes are discarded, unseen by the store."""
    image = layered_image()
    reference = registry.publish(image)
    layer = image.layers[1]
    path = registry.behave(layer.digest, WRONG[kind](layer.blob), resource(layer.blob, etag=None))

    case.pull.image(reference)

    assert len(registry.asked(path)) == 2
    assert own_blobs(case.backing) == blobs_of(image)
    assert left_by(case) == NOTHING


@pytest.mark.parametrize("kind", WRONG)
def test_blob_that_stays_wrong_ends_the_pull(
    kind: str, case: Case, registry: HostileRegistry
) -> None:
    """After five downloads; no name, no wrong byte and no file is left."""
    image = layered_image(1)
    reference = registry.publish(image)
    layer = image.layers[0]
    path = registry.behave(layer.digest, WRONG[kind](layer.blob))

    with pytest.raises((DigestMismatchError, SizeMismatchError), match="it came 5 times"):
        case.pull.image(reference)

    assert len(registry.asked(path)) == 5
    assert Digest.parse(layer.digest) not in own_blobs(case.backing)
    assert not case.images.exists(reference)
    assert left_by(case).files == []


def test_manifest_that_is_not_what_its_digest_says_ends_the_pull(
    case: Case, registry: HostileRegistry
) -> None:
    """A tag may point anywhere, a digest not."""
    image, other = layered_image(seed="one"), layered_image(seed="other")
    reference = registry.publish(image)
    path = f"/v2/app/manifests/{image.digest}"
    registry.on(path, resource(other.manifest, headers={"Content-Type": image.root["mediaType"]}))

    with pytest.raises(DigestMismatchError):
        case.pull.image(reference)

    assert own_blobs(case.backing) == set()
    assert left_by(case).files == []


def test_verified_file_of_an_earlier_run_is_not_downloaded_again(
    case: Case, registry: HostileRegistry
) -> None:
    """The run was killed between verification and ingest; its word counts for nothing."""
    image = layered_image()
    reference = registry.publish(image)
    layer = image.layers[0]
    put_verified(case.settings, layer.digest, layer.blob)
    told = Told()

    case.pull.image(reference, progress=told)

    assert ("verify", layer.digest) in told.started
    assert ("download", layer.digest) not in told.started
    assert registry.asked(registry.blob(layer.digest)) == []
    assert left_by(case) == NOTHING


@pytest.mark.parametrize("kind", ["damaged", "longer", "linked", "no file"])
def test_leftover_in_verified_that_proves_nothing_is_downloaded_again(
    kind: str, case: Case, registry: HostileRegistry, tmp_path: Path
) -> None:
    """It is found out before anybody uses it, and costs no attempt."""
    image = layered_image()
    reference = registry.publish(image)
    layer = image.layers[0]
    data = {"damaged": bytes(len(layer.blob)), "longer": layer.blob + b"x"}.get(kind, layer.blob)
    path = put_verified(case.settings, layer.digest, data)
    if kind == "linked":
        (case.settings.layout.verified / "second name").hardlink_to(path)
    elif kind == "no file":
        path.unlink()
        path.symlink_to("/etc/passwd")
    told = Told()

    case.pull.image(reference, progress=told)

    assert told.started.count(("download", layer.digest)) == 1
    assert told.started.count(("verify", layer.digest)) == 2
    assert told.started.count(("ingest", layer.digest)) == 1
    assert own_blobs(case.backing) == blobs_of(image)
    (case.settings.layout.verified / "second name").unlink(missing_ok=True)
    assert left_by(case) == NOTHING


class Told:
    """Progress that remembers what was begun."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
        self.started.append((action, item))

    def advance(self, action: str, item: str, amount: int) -> None: ...

    def finish(self, action: str, item: str) -> None: ...


def put_verified(settings: Settings, digest: str, data: bytes) -> Path:
    path = settings.layout.verified / digest.removeprefix("sha256:")
    path.write_bytes(data)
    path.chmod(0o440)
    return path


def test_two_pulls_of_one_image_share_the_work(case: Case, registry: HostileRegistry) -> None:
    """Every blob is sent once; both end well."""
    image = big_image()
    reference = registry.publish(image)
    layer = image.layers[0]
    path = registry.behave(layer.digest, resource(layer.blob, etag=None, piece=64 * 1024))
    failures: list[BaseException] = []

    def pull(name: str) -> None:
        try:
            case.pull.image(reference, name=name)
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    threads = [threading.Thread(target=pull, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(registry.asked(path)) == 1
    assert case.images.get("one").target == case.images.get("two").target
    assert left_by(case) == NOTHING


class CancelAt(Progress):
    """Stops the work when so many bytes of an action were told."""

    def __init__(self, cancel: Cancellation, action: str, bytes_: int = 1) -> None:
        self._cancel, self._action, self._left = cancel, action, bytes_

    def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None: ...

    def advance(self, action: str, item: str, amount: int) -> None:
        if action == self._action:
            self._left -= amount
            if self._left <= 0:
                self._cancel.set()

    def finish(self, action: str, item: str) -> None: ...


@pytest.mark.parametrize("action", ["download", "verify", "ingest"])
def test_cancelled_pull_is_gone_on_with(action: str, case: Case, registry: HostileRegistry) -> None:
    """Nothing is visible after the stop, and no byte that came is sent again."""
    image = big_image()
    reference = registry.publish(image)
    layer = image.layers[0]
    path = registry.behave(layer.digest, resource(layer.blob, etag=None, piece=64 * 1024))
    cancel = Cancellation()

    with pytest.raises(InterruptedOperationError):
        case.pull.image(reference, cancel=cancel, progress=CancelAt(cancel, action, MIB))
    assert not case.images.exists(reference)
    case.pull.image(reference)

    sent = sum(len(layer.blob) - start_of(request.headers) for request in registry.asked(path))
    assert sent < 2 * len(layer.blob) or action == "download"
    assert left_by(case) == NOTHING


def start_of(headers: dict[str, str]) -> int:
    return int(headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))


def test_pull_without_room_is_refused_before_a_blob_is_asked_for(
    pull_settings: Settings, registry: HostileRegistry
) -> None:
    """The message says how much is missing."""
    image = layered_image()
    reference = registry.publish(image)
    limits = replace(pull_settings.limits, min_free_bytes=1 << 60)
    with Case.open(replace(pull_settings, limits=limits)) as case:
        with pytest.raises(NoSpaceError, match="can give; make room"):
            case.pull.image(reference)
        assert left_by(case).reservations == []

    assert registry.blob_requests(layer.digest for layer in image.layers) == 0


def test_agent_that_dies_in_a_pull_is_an_error_and_the_next_pull_ends_well(
    case: Case, registry: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had is gone on with."""
    image = big_image()
    reference = registry.publish(image)
    layer = image.layers[0]

    def kill(_request: object, line: Line) -> None:
        os.kill(agents_of(os.getpid())["downloader"], signal.SIGKILL)
        line.hold()

    registry.behave(layer.digest, kill, resource(layer.blob, etag=None))
    with pytest.raises(AgentError, match="ended by SIGKILL"):
        case.pull.image(reference)
    case.pull.image(reference)

    assert own_blobs(case.backing) == blobs_of(image)
    assert left_by(case) == NOTHING
