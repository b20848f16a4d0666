"""A registry that nobody here wrote."""

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from cas.datastores.fetch import discard, fetch
from cas.datastores.opening import open_registry
from cas.datastores.port import Registry, Validator
from cas.datastores.registry.docker_config import stored_credentials
from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, Mirror, SourceSettings, TransportSettings
from cas.datastores.terms import Wanted
from cas.errors import (
    AuthenticationError,
    DigestMismatchError,
    LimitExceededError,
    PlatformNotFoundError,
    SourceChangedError,
    SourceNotFoundError,
    SourceUnavailableError,
    UntrustedServerError,
)
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.documents import Index, Manifest, parse_document
from cas.model.limits import Limits
from cas.model.media_types import DOCKER_LAYER_GZIP, OCI_INDEX
from cas.model.platforms import parse_platform
from cas.model.reference import ImageReference
from tests.support.fetching import MIB, Fetching
from tests.support.hostile_server import HostileServer, resource
from tests.support.published import Published
from tests.support.registry import PASSWORD, USER, TokenServer, running_registry
from tests.support.registry import Registry as Server

ALICE = Credentials(username=USER, password=Secret(PASSWORD))
LIMIT = Limits().document_bytes


def _settings(server: Server, **more: object) -> SourceSettings:
    settings = SourceSettings(
        url=f"docker://{server.address}",
        plain_http=not server.ca_pem,
        transport=TransportSettings(ca_pem=server.ca_pem, idle_seconds=60),
    )
    return replace(settings, **more)  # type: ignore[arg-type] # fields by name


def _reference(server: Server, name: str) -> ImageReference:
    return ImageReference.parse(f"{server.address}/{name}")


@pytest.fixture
def registry(open_registry_server: Server) -> Iterator[Registry]:
    """The open one, opened."""
    with open_registry(_settings(open_registry_server)) as registry:
        yield registry


def test_tag_is_resolved_to_what_it_points_to(
    registry: Registry, open_registry_server: Server, published: Published
) -> None:
    """Media type, digest and size of the index itself."""
    found = registry.resolve(_reference(open_registry_server, "team/app:1"))

    assert str(found.digest) == published.index.digest
    assert found.media_type == OCI_INDEX
    assert found.size == len(published.index.manifest)


@pytest.mark.parametrize("named", ["team/app:1", "team/app@{digest}"])
@pytest.mark.parametrize(
    ("platform", "number"), [("linux/amd64", 0), ("linux/arm64/v8", 1), ("linux/arm/v8", 2)]
)
def test_reference_is_resolved_to_the_manifest_of_a_platform(
    registry: Registry,
    open_registry_server: Server,
    published: Published,
    named: str,
    platform: str,
    number: int,
) -> None:
    """The best of the index, by tag as by digest; attestations are none."""
    reference = _reference(open_registry_server, named.format(digest=published.index.digest))

    found = registry.resolve(reference, platform=parse_platform(platform))

    root = Descriptor(OCI_INDEX, Digest.of(published.index.manifest), 1)
    index = parse_document(published.index.manifest, root, Limits())
    assert isinstance(index, Index)
    assert found.digest == index.manifests[number].digest
    raw = registry.manifest("team/app", found.digest, limit=LIMIT)
    assert isinstance(parse_document(raw, found, Limits()), Manifest)


def test_platform_that_an_image_does_not_have_is_not_found(
    registry: Registry, open_registry_server: Server
) -> None:
    """The error says which ones there are."""
    reference = _reference(open_registry_server, "team/app:1")

    with pytest.raises(PlatformNotFoundError, match="linux/amd64, linux/arm/v7, linux/arm64"):
        registry.resolve(reference, platform=parse_platform("linux/riscv64"))


def test_blob_is_fetched_and_resumed_by_its_digest(
    registry: Registry, open_registry_server: Server, published: Published, fetching: Fetching
) -> None:
    """The digest proves that it is the same, whatever the server sends as validator."""
    digest = Digest.parse(published.layer.digest)
    path = registry.blob_path("team/large", digest)

    assert registry.stat(path).size == len(published.layer.blob)
    assert registry.stat(path).validator == Validator("digest", str(digest))
    with registry.open(path, offset=MIB, validator=Validator("digest", str(digest))) as download:
        assert b"".join(download.chunks) == published.layer.blob[MIB:]
    fetching(_settings(open_registry_server), path=path, size=len(published.layer.blob))

    assert fetching.file.read_bytes() == published.layer.blob


def test_blob_is_not_resumed_with_the_proof_of_another(
    registry: Registry, published: Published
) -> None:
    """Neither from its end on."""
    path = registry.blob_path("team/large", Digest.parse(published.layer.digest))
    size = len(published.layer.blob)
    own = Validator("digest", published.layer.digest)

    for offset, validator in ((1, Validator("digest", "sha256:" + "0" * 64)), (size + 1, own)):
        with (
            pytest.raises(SourceChangedError),
            registry.open(path, offset=offset, validator=validator),
        ):
            pass


def test_small_blob_is_read_whole_and_verified(registry: Registry, published: Published) -> None:
    """Within a limit; a wrong descriptor is told from a wrong blob."""
    config = published.large.config
    right = Descriptor("application/json", Digest.of(config), len(config))

    assert registry.blob("team/large", right, limit=LIMIT) == config
    with pytest.raises(LimitExceededError):
        registry.blob("team/large", right, limit=len(config) - 1)


@pytest.mark.parametrize(
    "name", ["team/app:absent", "team/absent:1", f"team/app@sha256:{'0' * 64}"]
)
def test_reference_that_points_nowhere_is_not_found(
    registry: Registry, open_registry_server: Server, name: str
) -> None:
    """Tag, repository and digest alike."""
    with pytest.raises(SourceNotFoundError):
        registry.resolve(_reference(open_registry_server, name))


def test_tag_that_may_be_absent_is_looked_for(registry: Registry, published: Published) -> None:
    """As for signatures, which are tags named after what they sign."""
    tag = published.index.digest.replace(":", "-") + ".sig"

    found = registry.find_tag("team/app", tag)

    assert found is not None
    assert str(found.digest) == published.signature.digest
    assert registry.find_tag("team/app", "absent") is None


def test_referrers_of_a_registry_without_them_are_none(
    registry: Registry, published: Published
) -> None:
    """This one answers 404, and has no tag that stands for the list either."""
    assert registry.referrers("team/app", Digest.parse(published.index.digest)) == ()


def test_manifest_above_the_limit_is_refused(registry: Registry, published: Published) -> None:
    """However large it really is."""
    digest = Digest.parse(published.index.digest)

    with pytest.raises(LimitExceededError):
        registry.manifest("team/app", digest, limit=100)


def test_private_registry_is_entered_with_ca_and_password(
    private_registry: Server, published: Published, fetching: Fetching
) -> None:
    """For resolving as for fetching (EVE #6086)."""
    settings = _settings(private_registry, credentials=ALICE)
    with open_registry(settings) as registry:
        found = registry.resolve(_reference(private_registry, "team/large:1"))
        path = registry.blob_path("team/large", Digest.parse(published.layer.digest))
    fetching(settings, path=path)

    assert str(found.digest) == published.large.digest
    assert fetching.file.read_bytes() == published.layer.blob


@pytest.mark.parametrize(
    "credentials",
    [Credentials(), Credentials(username=USER, password=Secret("wrong"))],
    ids=["none", "wrong"],
)
@pytest.mark.parametrize("kind", ["private_registry", "token_registry"])
def test_registry_that_refuses_us_says_so_at_once(
    request: pytest.FixtureRequest, kind: str, credentials: Credentials
) -> None:
    """No retry with credentials that do not work."""
    server: Server = request.getfixturevalue(kind)
    with (
        open_registry(_settings(server, credentials=credentials)) as registry,
        pytest.raises(AuthenticationError) as caught,
    ):
        registry.resolve(_reference(server, "team/large:1"))

    assert "wrong" not in str(caught.value)


def test_registry_of_an_unknown_authority_is_not_trusted(private_registry: Server) -> None:
    """Nor is the password sent to it."""
    settings = _settings(private_registry, credentials=ALICE, transport=TransportSettings())
    with open_registry(settings) as registry, pytest.raises(UntrustedServerError):
        registry.resolve(_reference(private_registry, "team/large:1"))


@pytest.mark.parametrize(
    "credentials", [ALICE, Credentials(identity_token=Secret(PASSWORD))], ids=["basic", "identity"]
)
def test_registry_with_tokens_is_entered_by_one_token_per_repository(
    token_registry: Server,
    token_server: TokenServer,
    published: Published,
    fetching: Fetching,
    credentials: Credentials,
) -> None:
    """Asked for when the registry wants it, and kept."""
    before = len(token_server.requests)
    with open_registry(_settings(token_registry, credentials=credentials)) as registry:
        for name in ("team/large:1", "team/large:1", "team/app:1"):
            registry.resolve(_reference(token_registry, name))
        path = registry.blob_path("team/large", Digest.parse(published.layer.digest))
        with registry.open(path) as download:
            assert b"".join(download.chunks) == published.layer.blob

    assert len(token_server.requests) - before == 2


def test_transfer_goes_on_at_another_mirror(
    server: HostileServer,
    published: Published,
    fetching: Fetching,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Sources of one digest are interchangeable in the middle of a blob."""
    digest = published.layer.digest
    blob = published.layer.blob
    server.on(f"/v2/team/large/blobs/{digest}", resource(blob, cut_after=MIB))
    with running_registry(tmp_path_factory.mktemp("own"), root=published.root) as registry:
        settings = _settings(registry, mirrors=(Mirror(url=server.url),))
        fetched = fetching(settings, path=f"team/large@{digest}")
        answers = registry.answers(digest, 1)

    assert fetching.file.read_bytes() == blob
    assert fetched.received == len(blob)
    assert answers == [(206, len(blob) - MIB)]
    assert server.requests[0].target.endswith(f"?ns={registry.address}")


def test_mirror_that_delivers_another_blob_is_not_asked_first_again(
    open_registry_server: Server, server: HostileServer, published: Published, fetching: Fetching
) -> None:
    """Who discards a blob that the verifier refused gets the next one from somewhere else."""
    blob, digest = published.layer.blob, published.layer.digest
    server.on(f"/v2/team/large/blobs/{digest}", resource(blob[::-1]))
    settings = _settings(open_registry_server, mirrors=(Mirror(url=server.url),))
    wanted = Wanted(path=f"team/large@{digest}", digest=Digest.parse(digest), size=len(blob))

    with open_registry(settings) as registry:
        fetch(registry, wanted, fetching.file)
        assert fetching.file.read_bytes() == blob[::-1]
        discard(fetching.file)
        fetch(registry, wanted, fetching.file)

    assert fetching.file.read_bytes() == blob
    assert len(server.requests) == 1


def test_mirror_that_lies_about_a_manifest_is_passed_over(
    open_registry_server: Server, server: HostileServer, published: Published
) -> None:
    """A document is what its digest says, whoever delivers it."""
    digest = Digest.parse(published.index.digest)
    server.on(f"/v2/team/app/manifests/{digest}", resource(b'{"schemaVersion":2}'))
    settings = _settings(open_registry_server, mirrors=(Mirror(url=server.url),))

    with open_registry(settings) as registry:
        raw = registry.manifest("team/app", digest, limit=LIMIT)

    assert raw == published.index.manifest
    assert len(server.requests) == 1


def test_mirror_is_asked_for_what_it_may_say_only(
    open_registry_server: Server, server: HostileServer, published: Published
) -> None:
    """A mirror that may not resolve does not learn which tags are asked for."""
    settings = _settings(open_registry_server, mirrors=(Mirror(url=server.url, resolves=False),))

    with open_registry(settings) as registry:
        registry.resolve(_reference(open_registry_server, "team/app:1"))
        assert server.requests == []
        registry.manifest("team/app", Digest.parse(published.index.digest), limit=LIMIT)

    assert len(server.requests) == 1


def test_failure_of_all_hosts_names_each(server: HostileServer, fetching: Fetching) -> None:
    """The registry's own failure counts, the mirrors' are noted."""
    settings = SourceSettings(
        url="docker://127.0.0.1:1", plain_http=True, mirrors=(Mirror(url=server.url),)
    )

    with pytest.raises(SourceUnavailableError, match=r"127\.0\.0\.1:1/") as caught:
        fetching(settings, path=f"a@sha256:{'0' * 64}")

    assert server.url in "".join(caught.value.__notes__)
    assert fetching.names() == []


def test_credentials_that_docker_stored_open_the_registry(
    private_registry: Server, tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a helper program, which is asked for this host."""
    helper = tmp_path / "docker-credential-tests"
    helper.write_text(
        "#!/bin/sh\nread host\n"
        f'[ "$host" = "{private_registry.address}" ] || exit 1\n'
        f'echo \'{{"ServerURL":"x","Username":"{USER}","Secret":"{PASSWORD}"}}\'\n'
    )
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    config = tmp_path / "config.json"
    config.write_text('{"credsStore": "tests"}')

    credentials = stored_credentials(private_registry.address, config)
    with open_registry(_settings(private_registry, credentials=credentials)) as registry:
        assert registry.resolve(_reference(private_registry, "team/large:1")).size > 0


def test_digest_that_a_registry_tells_must_be_the_one_that_was_asked_for(
    server: HostileServer,
) -> None:
    """Resolving a digest to another one is a lie."""
    asked = f"sha256:{'0' * 64}"
    headers = {"Docker-Content-Digest": f"sha256:{'1' * 64}", "Content-Type": OCI_INDEX}
    server.on(f"/v2/a/manifests/{asked}", resource(b"{}", headers=headers))
    settings = SourceSettings(url=f"docker://127.0.0.1:{server.port}", plain_http=True)

    with open_registry(settings) as registry, pytest.raises(DigestMismatchError):
        registry.resolve(ImageReference.parse(f"127.0.0.1:{server.port}/a@{asked}"))


def test_layer_of_a_docker_image_is_found_by_its_manifest(
    registry: Registry, open_registry_server: Server, published: Published
) -> None:
    """Docker's media types are the field's as well."""
    found = registry.resolve(_reference(open_registry_server, "team/large:1"))
    raw = registry.manifest("team/large", found.digest, limit=LIMIT)
    manifest = parse_document(raw, found, Limits())

    assert isinstance(manifest, Manifest)
    assert manifest.layers[0].media_type == DOCKER_LAYER_GZIP
    assert str(manifest.layers[0].digest) == published.layer.digest
