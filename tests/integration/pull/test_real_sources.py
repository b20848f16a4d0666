"""Through both confined agents from servers that nobody here wrote."""

import base64
import json
import pwd
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from cas.app import Case
from cas.datastores.progress_record import read_record
from cas.downloader.downloader import Downloader
from cas.errors import AuthenticationError, DeniedError, SignatureError
from cas.model.descriptor import Platform
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.model.transfer_name import TransferName
from cas.pull.sources import url_settings
from cas.verifier.verifier import Verifier
from tests.integration.pull.conftest import NOTHING, left_by
from tests.support.command import CasProcess, write_configuration
from tests.support.datastores import Datastore
from tests.support.fetching import BODY, MIB
from tests.support.held_line import HeldLine
from tests.support.images import build_image, layered_image
from tests.support.layers import build_layer, file
from tests.support.published import Published
from tests.support.registry import PASSWORD, USER, Registry
from tests.support.signing import Signer, signature_image, simple_signing
from tests.support.stores import own_blobs, random_bytes
from tests.support.waiting import wait_for

STORES = ("https_store", "s3_store", "azure_store", "gcs_store", "sftp_store")
ARM = Platform("linux", "arm64")
_LARGE = 24 * MIB
_SYNC = 4 * MIB
_HELD = 3 * _SYNC


@pytest.fixture(params=STORES)
def datastore(request: pytest.FixtureRequest) -> Datastore:
    """One of each kind."""
    store: Datastore = request.getfixturevalue(request.param)
    return store


def test_file_comes_through_both_agents(datastore: Datastore, pull_settings: Settings) -> None:
    """Whatever a library loads late, it finds behind the walls too."""
    name = TransferName(uuid4(), Digest.of(BODY))

    with (
        Downloader(pull_settings, datastore.settings) as downloader,
        Verifier(pull_settings) as verifier,
    ):
        assert downloader.stat(datastore.path).size == len(BODY)
        downloader.fetch(name, datastore.path, len(BODY))
        verified = verifier.verify(name)

    assert verified.read_bytes() == BODY


@pytest.mark.parametrize("place", ["unreadable", "link"])
def test_local_file_out_of_the_downloaders_reach_is_told_with_its_user(
    place: str, pull_settings: Settings, tmp_path: Path
) -> None:
    """It is not root who reads it, so that running as root would not help."""
    (tmp_path / "stick").mkdir()
    (tmp_path / "secret").write_bytes(BODY)
    (tmp_path / "stick" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "stick" / "unreadable").touch(0o600)
    for directory in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        directory.chmod(0o755)
    source, path = url_settings(pull_settings.download, f"file://{tmp_path}/stick/{place}")
    user = pwd.getpwnam(pull_settings.owners["downloader"]).pw_uid

    with Downloader(pull_settings, source) as downloader, pytest.raises(DeniedError) as caught:
        downloader.fetch(TransferName(uuid4(), Digest.of(BODY)), path)

    assert f"user {user} may not read" in caught.value.message
    assert "as root" not in caught.value.message


@pytest.mark.parametrize("store", ["https_store", "azure_store", "sftp_store"])
def test_refused_credentials_are_told_by_the_confined_downloader(
    store: str, pull_settings: Settings, request: pytest.FixtureRequest
) -> None:
    """Ways of failure load modules of their own."""
    refused = request.getfixturevalue(store).refused
    with (
        Downloader(pull_settings, refused) as downloader,
        pytest.raises(AuthenticationError),
    ):
        downloader.stat("blob one")


@pytest.fixture
def trusting_settings(
    pull_settings: Settings, private_registry: Registry, token_registry: Registry, tmp_path: Path
) -> Settings:
    """Settings with the private authority of one registry and the password of both."""
    directory = tmp_path / "hosts" / private_registry.address
    directory.mkdir(parents=True)
    (directory / "ca.pem").write_text(private_registry.ca_pem)
    server = f"https://{private_registry.address}"
    (directory / "hosts.toml").write_text(f'server = "{server}"\nca = "ca.pem"\n')
    basic = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    registries = (private_registry, token_registry)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {each.address: basic for each in registries}}))
    config.chmod(0o600)
    return replace(pull_settings, download=replace(pull_settings.download, docker_config=config))


@pytest.mark.parametrize("kind", ["private_registry", "token_registry"])
def test_image_of_many_platforms_comes_from_a_registry_that_wants_a_password(
    kind: str, trusting_settings: Settings, published: Published, request: pytest.FixtureRequest
) -> None:
    """Over TLS of a private authority, or with a token; one platform of it."""
    server: Registry = request.getfixturevalue(kind)
    reference = f"{server.address}/team/app:1"

    with Case.open(trusting_settings) as case:
        pulled = case.pull.image(reference, platform=ARM)

        assert str(pulled.record.target.digest) == published.index.digest
        listed = json.loads(published.index.manifest)["manifests"]
        there = [each for each in listed if case.blobs.exists(Digest.parse(each["digest"]))]
        assert [each["platform"]["architecture"] for each in there] == ["arm64"]
        assert left_by(case) == NOTHING


@pytest.mark.parametrize("kind", ["private_registry", "token_registry"])
def test_registry_refuses_a_pull_without_the_password(
    kind: str, trusting_settings: Settings, request: pytest.FixtureRequest
) -> None:
    """And nothing is left of it."""
    server: Registry = request.getfixturevalue(kind)
    download = replace(trusting_settings.download, docker_config=None)

    with Case.open(replace(trusting_settings, download=download)) as case:
        with pytest.raises(AuthenticationError):
            case.pull.image(f"{server.address}/team/app:1")
        assert own_blobs(case.backing) == set()
        assert left_by(case) == NOTHING


@pytest.fixture
def signing_case(pull_settings: Settings, tmp_path: Path) -> Iterator[tuple[Case, Signer]]:
    """A store whose policy demands cosign's signature by one key, and who has the key."""
    signer = Signer()
    signer.write_public_key(tmp_path / "0.pub")
    policy = tmp_path / "policy.toml"
    policy.write_text("[[rule]]\nmatch = '*'\nrequire = 'cosign'\nkeys = ['0.pub']\n")
    policy.chmod(0o644)
    download = replace(pull_settings.download, signature_policy=policy)
    with Case.open(replace(pull_settings, download=download)) as case:
        yield case, signer


def push_signed(server: Registry, directory: Path, seed: str, signer: Signer) -> str:
    image = layered_image(seed=seed)
    payload = simple_signing(image.digest, "registry.example.com/app")
    signature = signature_image(payload, signer.sign(payload))
    name = f"signed/{seed}"
    server.push(image.write_oci_layout(directory / "image", annotations={}), f"{name}:1")
    tag = f"sha256-{image.digest.removeprefix('sha256:')}.sig"
    layout = signature.write_oci_layout(directory / "signature", annotations={})
    server.push(layout, f"{name}:{tag}")
    return f"{server.address}/{name}:1"


def test_signature_in_a_registry_is_what_the_policy_asks_for(
    signing_case: tuple[Case, Signer], open_registry_server: Registry, tmp_path: Path
) -> None:
    """Found under cosign's tag."""
    case, signer = signing_case
    reference = push_signed(open_registry_server, tmp_path, "good", signer)

    assert case.pull.image(reference).signed_by == "0.pub"


def test_signature_of_another_key_in_a_registry_keeps_the_image_out(
    signing_case: tuple[Case, Signer], open_registry_server: Registry, tmp_path: Path
) -> None:
    """Nothing of it is taken in."""
    case, _ = signing_case
    reference = push_signed(open_registry_server, tmp_path, "bad", Signer())

    with pytest.raises(SignatureError):
        case.pull.image(reference)

    assert own_blobs(case.backing) == set()
    assert left_by(case).files == []


def test_killed_pull_goes_on_where_its_bytes_are_safe(
    pull_settings: Settings, open_registry_server: Registry, tmp_path: Path
) -> None:
    """By the registry's own count: nothing is sent again of what was noted as synced."""
    image = build_image([build_layer([file("data", random_bytes(_LARGE))])])
    layer = image.layers[0]
    open_registry_server.push(
        image.write_oci_layout(tmp_path / "image", annotations={}), "killed/app:1"
    )
    config = write_configuration(tmp_path, pull_settings)
    with config.open("a") as stream:
        stream.write(f"[download]\nsync_bytes = {_SYNC}\n")

    port = int(open_registry_server.address.rpartition(":")[2])
    with HeldLine(port, _HELD) as line:
        command = (config, "image", "pull", f"{line.address}/killed/app:1")
        with CasProcess(*command) as process:
            wait_for(lambda: list(pull_settings.layout.downloader.glob("*.progress")))
            process.kill()
            assert process.result().status == -signal.SIGKILL
        (note,) = pull_settings.layout.downloader.glob("*.progress")
        record = read_record(note)
        line.release()
        with CasProcess(*command) as process:
            assert process.result().status == 0

    assert record is not None
    sent = dict(open_registry_server.answers(layer.digest, 2))
    assert set(sent) == {200, 206}
    assert _SYNC <= record.synced <= len(layer.blob) - sent[206]
    with Case.open(pull_settings) as case:
        assert case.images.exists(command[-1])
        case.recover()  # a note may have been killed while it was written
        assert left_by(case).files == []
