"""What a signature policy lets in, and what it keeps out."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import ConfigError, SignatureError, SourceNotFoundError
from cas.model.digest import Digest
from cas.model.labels import SIGNATURE, SIGNED_BY
from cas.model.settings import Settings
from tests.integration.pull.conftest import left_by
from tests.support.hostile_registry import HostileRegistry
from tests.support.hostile_server import resource
from tests.support.images import OCI_INDEX, BuiltImage, encode, layered_image
from tests.support.signing import KINDS, Signer, signature_image, simple_signing
from tests.support.stores import own_blobs

DATA = b"a disk of some kind"
NAME = "registry.example.com/app"


@pytest.fixture
def signer() -> Signer:
    return Signer()


def case_with(settings: Settings, directory: Path, policy: str, *signers: Signer) -> Case:
    """Open the store with a policy; the signers' keys are ``0.pub``, ``1.pub`` and so on."""
    for number, signer in enumerate(signers):
        signer.write_public_key(directory / f"{number}.pub")
    path = directory / "policy.toml"
    path.write_text(policy)
    path.chmod(0o644)
    return Case.open(replace(settings, download=replace(settings.download, signature_policy=path)))


def rule(require: str, *keys: str, identity: str = "") -> str:
    return (
        f"[[rule]]\nmatch = '*'\nrequire = '{require}'\n"
        f"keys = {list(keys)}\nidentity = '{identity}'\n"
    )


COSIGN = rule("cosign", "0.pub")


def publish_signature(
    registry: HostileRegistry, image: BuiltImage, payload: bytes, signature: bytes
) -> None:
    tag = f"sha256-{image.digest.removeprefix('sha256:')}.sig"
    registry.publish(signature_image(payload, signature), tag=tag)


def sign(registry: HostileRegistry, image: BuiltImage, signer: Signer, name: str = NAME) -> None:
    payload = simple_signing(image.digest, name)
    publish_signature(registry, image, payload, signer.sign(payload))


@pytest.mark.parametrize("kind", KINDS)
def test_image_signed_by_a_key_of_the_policy_is_taken(
    kind: str, pull_settings: Settings, registry: HostileRegistry, tmp_path: Path
) -> None:
    """The answer is on the image; of the signature itself nothing is kept."""
    image, signer = layered_image(), Signer(kind)
    reference = registry.publish(image)
    sign(registry, image, signer)

    policy = rule("cosign", "0.pub", "1.pub")
    with case_with(pull_settings, tmp_path, policy, Signer(), signer) as case:
        pulled = case.pull.image(reference)

        assert pulled.signed_by == "1.pub"
        labels = case.images.get(reference).labels
        assert (labels[SIGNATURE], labels[SIGNED_BY]) == ("cosign", "1.pub")
        assert own_blobs(case.backing) == {Digest.parse(digest) for digest in image.blobs}
        assert left_by(case).files == []


def refer(registry: HostileRegistry, image: BuiltImage, manifests: list[dict[str, object]]) -> None:
    """Let the registry say that these manifests refer to the image."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    path = f"/v2/app/referrers/{image.digest}"
    registry.on(path, resource(encode(index), headers={"Content-Type": OCI_INDEX}))


def test_signature_that_refers_to_the_image_is_found(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """Where the registry has no tag of cosign's."""
    image = layered_image()
    reference = registry.publish(image)
    payload = simple_signing(image.digest, NAME)
    signature = signature_image(payload, signer.sign(payload))
    registry.publish(signature, tag="unused")
    refer(registry, image, [signature.root])

    with case_with(pull_settings, tmp_path, COSIGN, signer) as case:
        assert case.pull.image(reference).signed_by == "0.pub"


def test_signature_behind_many_other_referrers_is_found(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """No number and no size of what is something else hides it; that is not even asked for."""
    image = layered_image()
    reference = registry.publish(image)
    payload = simple_signing(image.digest, NAME)
    signature = signature_image(payload, signer.sign(payload))
    registry.publish(signature, tag="unused")
    others = [
        {**signature.root, "digest": f"sha256:{number:064x}", "artifactType": "application/spdx"}
        for number in range(1200)
    ]
    others.insert(0, {**signature.root, "mediaType": "x" * 600_000})
    good = {**signature.root, "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json"}
    refer(registry, image, [*others, good])

    with case_with(pull_settings, tmp_path, COSIGN, signer) as case:
        assert case.pull.image(reference).signed_by == "0.pub"
    assert registry.asked(f"/v2/app/manifests/{others[1]['digest']}") == []


@pytest.mark.parametrize("wrong", ["nothing", "key", "image", "bytes", "base64", "payload"])
def test_image_without_an_acceptable_signature_is_refused(
    wrong: str, pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """Before a byte of it is taken in; nothing is left but what was there."""
    image = layered_image()
    reference = registry.publish(image)
    payload = simple_signing(image.digest, NAME)
    match wrong:
        case "key":
            sign(registry, image, Signer())
        case "image":
            other = simple_signing(layered_image(seed="other").digest, NAME)
            publish_signature(registry, image, other, signer.sign(other))
        case "bytes":
            publish_signature(registry, image, payload, b"x" + signer.sign(payload)[1:])
        case "base64":
            publish_signature(registry, image, payload, b"")
        case "payload":
            publish_signature(registry, image, b"{}", signer.sign(b"{}"))

    with case_with(pull_settings, tmp_path, COSIGN, signer) as case:
        with pytest.raises(SignatureError):
            case.pull.image(reference)

        assert own_blobs(case.backing) == set()
        assert left_by(case).files == []
    assert registry.blob_requests(layer.digest for layer in image.layers) == 0


def test_bundle_of_sigstore_is_told_as_what_is_not_understood(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """It is what cosign writes from version 3 on, and no reason to pass over other signatures."""
    image = layered_image()
    reference = registry.publish(image)
    kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
    bundle = signature_image(b"{}", b"", kind)
    registry.publish(bundle, tag="unused")
    refer(registry, image, [{**bundle.root, "artifactType": kind}])

    with case_with(pull_settings, tmp_path, COSIGN, signer) as case:
        with pytest.raises(SignatureError, match="--new-bundle-format=false"):
            case.pull.image(reference)
        payload = simple_signing(image.digest, NAME)
        good = signature_image(payload, signer.sign(payload))
        registry.publish(good, tag="unused-too")
        refer(registry, image, [bundle.root, good.root])
        assert case.pull.image(reference).signed_by == "0.pub"


def test_identity_is_compared_in_the_one_form_of_names(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """Whatever the signer called the same repository."""
    image = layered_image()
    reference = registry.publish(image)
    sign(registry, image, signer, name="Registry.example.com:443/app")

    policy = rule("cosign", "0.pub", identity=NAME)
    with case_with(pull_settings, tmp_path, policy, signer) as case:
        assert case.pull.image(reference).signed_by == "0.pub"


def test_identity_in_the_signature_must_match_where_the_policy_says_so(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """A signed image of another name is no answer."""
    image = layered_image()
    reference = registry.publish(image)
    sign(registry, image, signer, name="registry.example.com/other")

    policy = rule("cosign", "0.pub", identity=NAME)
    with (
        case_with(pull_settings, tmp_path, policy, signer) as case,
        pytest.raises(SignatureError, match="it was signed as"),
    ):
        case.pull.image(reference)


def test_closed_policy_asks_nobody_for_what_it_does_not_name(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path
) -> None:
    """Images and files alike."""
    reference = registry.publish(layered_image())
    url = registry.on("/a.img", resource(DATA))
    with case_with(pull_settings, tmp_path, 'default = "closed"\n') as case:
        with pytest.raises(SignatureError, match="allows nothing"):
            case.pull.image(reference)
        with pytest.raises(SignatureError, match="allows nothing"):
            case.pull.file(url, Digest.of(DATA))

    assert registry.requests == []


def test_label_of_a_signature_goes_when_the_policy_asks_for_none(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """It tells what was checked at the last pull."""
    image = layered_image()
    reference = registry.publish(image)
    sign(registry, image, signer)
    with case_with(pull_settings, tmp_path, COSIGN, signer) as case:
        case.pull.image(reference)

    with Case.open(pull_settings) as case:
        assert SIGNED_BY not in case.pull.image(reference).record.labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoded", [False, True])
def test_file_with_a_detached_signature_is_taken(
    kind: str, encoded: bool, pull_settings: Settings, registry: HostileRegistry, tmp_path: Path
) -> None:
    """Raw, as openssl writes it, or in base64, as cosign does."""
    signer = Signer(kind)
    signature = signer.sign(DATA)
    url = registry.on("/a.img", resource(DATA))
    registry.on("/a.img.sig", resource(base64.b64encode(signature) if encoded else signature))

    with case_with(pull_settings, tmp_path, rule("detached", "0.pub"), signer) as case:
        stored = case.pull.file(url, Digest.of(DATA))

        assert case.blobs.get(stored.digest).labels[SIGNED_BY] == "0.pub"


def test_file_signed_by_a_key_that_was_replaced_is_refused(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """The new key has the name of the old one, and the blob is in the store."""
    url = registry.on("/a.img", resource(DATA))
    registry.on("/a.img.sig", resource(signer.sign(DATA)))
    policy = rule("detached", "0.pub")
    with case_with(pull_settings, tmp_path, policy, signer) as case:
        case.pull.file(url, Digest.of(DATA))
        case.pull.file(url, Digest.of(DATA))

    with (
        case_with(pull_settings, tmp_path, policy, Signer()) as case,
        pytest.raises(SignatureError),
    ):
        case.pull.file(url, Digest.of(DATA))


def test_file_without_its_signature_is_refused(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """Also when the store has the bytes already, from a time of another policy."""
    url = registry.on("/a.img", resource(DATA))
    with Case.open(pull_settings) as case:
        case.pull.file(url, Digest.of(DATA))

    with case_with(pull_settings, tmp_path, rule("detached", "0.pub"), signer) as case:
        with pytest.raises(SourceNotFoundError):
            case.pull.file(url, Digest.of(DATA))
        registry.on("/a.img.sig", resource(Signer().sign(DATA)))
        with pytest.raises(SignatureError, match="not made by a key of the policy"):
            case.pull.file(url, Digest.of(DATA))
        assert left_by(case).files == []


def test_key_of_no_known_kind_is_a_wrong_configuration(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """Rather than a signature that nobody made."""
    image = layered_image()
    reference = registry.publish(image)
    sign(registry, image, signer)
    with case_with(pull_settings, tmp_path, COSIGN, signer) as case:
        (tmp_path / "0.pub").write_text("no key")
        with pytest.raises(ConfigError, match="key of the signature policy"):
            case.pull.image(reference)


def test_other_spelling_of_a_reference_does_not_get_around_its_rule(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path
) -> None:
    """A digest beside the tag changes nothing about whose image it is."""
    image = layered_image()
    reference = registry.publish(image)
    policy = f"[[rule]]\nmatch = '{reference}'\nrequire = 'refuse'\n"

    with (
        case_with(pull_settings, tmp_path, policy) as case,
        pytest.raises(SignatureError, match="allows nothing"),
    ):
        case.pull.image(f"{reference}@{image.digest}")


def test_signature_that_is_too_large_does_not_block_a_good_one(
    pull_settings: Settings, registry: HostileRegistry, tmp_path: Path, signer: Signer
) -> None:
    """Whoever may write to the repository could else keep the image from everybody."""
    image = layered_image()
    reference = registry.publish(image)
    publish_signature(registry, image, b" " * (64 * 1024 + 1), b"x")
    payload = simple_signing(image.digest, NAME)
    good = signature_image(payload, signer.sign(payload))
    registry.publish(good, tag="unused")
    refer(registry, image, [good.root])

    with case_with(pull_settings, tmp_path, COSIGN, signer) as case:
        assert case.pull.image(reference).signed_by == "0.pub"
