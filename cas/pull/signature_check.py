"""Whether what is to be pulled is signed as the policy wants it; asked before it is taken in."""

__all__ = ["check_image", "require_allowed"]

from collections.abc import Callable, Iterator
from itertools import islice

from cas.errors import IntegrityError, LimitExceededError, SignatureError, SourceNotFoundError
from cas.model.cancellation import Cancellation
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.documents import Manifest, parse_document
from cas.model.limits import Limits
from cas.model.media_types import is_manifest
from cas.model.signature_policy import PublicKey, Requirement, Rule
from cas.pull.transfer import Agents, RemoteBlob, Transfer
from cas.verifier.verifier import Verifier

_SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_PAYLOAD_BYTES = 64 * 1024
_MOST_MANIFESTS = 100
_MOST_SIGNATURES = 100
"""What comes after that many is not looked at; whoever may publish more can keep an image away."""
_SIGNATURE_LENGTH = 8 * 1024
"""Characters of base64; an RSA key of 16384 bits needs a third."""
_UNUSABLE = (IntegrityError, LimitExceededError, SignatureError, SourceNotFoundError)
"""What whoever published a signature can bring about, bundles that are not understood too."""


def require_allowed(rule: Rule, name: str) -> None:
    """Refuse what the policy refuses, whoever signed it.

    Raises:
        SignatureError: The rule says so.
    """
    if rule.require is Requirement.REFUSE:
        raise SignatureError(
            f"the signature policy allows nothing from {name!r}; add a rule that does",
            reference=name,
        )


def check_image(
    agents: Agents,
    transfer: Transfer,
    rule: Rule,
    *,
    repository: str,
    root: Descriptor,
    limits: Limits,
    cancel: Cancellation,
) -> PublicKey | None:
    """Find the key that signed an image; None where none is asked for.

    Looks at the tag that cosign derives from the digest, and at what refers to the image.

    Args:
        agents: Running.
        transfer: Fetches from the registry.
        rule: Of the policy.
        repository: Where the image is.
        root: Its manifest or index.
        limits: For documents.
        cancel: Ends it.

    Raises:
        SignatureError: There is no acceptable signature.
        CasError: As the registry and the agents do.

    Source: cosign's specification of signatures; OCI distribution specification, "Listing
    Referrers".
    """
    if rule.require is Requirement.NOTHING:
        return None
    if rule.require is not Requirement.COSIGN:
        raise SignatureError(
            f"the signature policy asks for a {rule.require} signature of what matches "
            f"{rule.pattern!r}; an image has none, it is signed with cosign",
            digest=root.digest,
        )
    search = _Search(agents, transfer, repository, limits, cancel)
    return _first_accepted(search, agents.verifier, root.digest, rule)


def _first_accepted(search: "_Search", verifier: Verifier, image: Digest, rule: Rule) -> PublicKey:
    """Check one signature after the other: anybody may have put bad ones beside a good one."""
    reasons: list[str] = []
    for signature in search.signatures(image, reasons.append):
        try:
            return verifier.check_cosign(image, [signature], rule)
        except SignatureError as error:
            reasons.append(error.message)
    if not reasons:
        return verifier.check_cosign(image, [], rule)
    raise SignatureError("; ".join(dict.fromkeys(reasons)), digest=image)


class _Search:
    """Looks for the signatures of one image."""

    def __init__(
        self,
        agents: Agents,
        transfer: Transfer,
        repository: str,
        limits: Limits,
        cancel: Cancellation,
    ) -> None:
        self._downloader = agents.downloader
        self._transfer = transfer
        self._repository = repository
        self._limits = limits
        self._cancel = cancel

    def signatures(
        self, image: Digest, refuse: Callable[[str], None]
    ) -> Iterator[tuple[bytes, str]]:
        """Yield signed documents, each with its signature; say why others are passed over."""
        for layer in islice(self._signed(image, refuse), _MOST_SIGNATURES):
            try:
                yield self._read(layer, _PAYLOAD_BYTES), layer.annotations[_SIGNATURE]
            except _UNUSABLE as error:
                refuse(f"a signature of {image} is of no use: {error.message}")

    def _signed(self, image: Digest, refuse: Callable[[str], None]) -> Iterator[Descriptor]:
        for descriptor in self._manifests(image):
            try:
                layers = list(self._layers(descriptor))
            except _UNUSABLE as error:
                refuse(f"signatures of {image} are of no use: {error.message}")
                continue
            yield from layers

    def _manifests(self, image: Digest) -> Iterator[Descriptor]:
        tagged = self._downloader.find_tag(
            self._repository, f"sha256-{image.hex}.sig", cancel=self._cancel
        )
        if tagged is not None:
            yield tagged
        referring = self._downloader.referrers(
            self._repository, image, artifact_type=_ARTIFACT, cancel=self._cancel
        )
        for descriptor in referring[:_MOST_MANIFESTS]:
            if is_manifest(descriptor.media_type) and descriptor != tagged:
                yield descriptor

    def _layers(self, descriptor: Descriptor) -> Iterator[Descriptor]:
        raw = self._read(descriptor, self._limits.document_bytes, document=True)
        document = parse_document(raw, descriptor, self._limits)
        for layer in document.layers if isinstance(document, Manifest) else ():
            if layer.media_type.startswith(_BUNDLE):
                raise SignatureError(
                    "a bundle of sigstore is not understood; sign with a key and "
                    "--new-bundle-format=false"
                )
            signature = layer.annotations.get(_SIGNATURE, "")
            if layer.media_type == _SIMPLE_SIGNING and 0 < len(signature) <= _SIGNATURE_LENGTH:
                yield layer

    def _read(self, descriptor: Descriptor, limit: int, *, document: bool = False) -> bytes:
        if descriptor.size > limit:
            raise LimitExceededError(
                f"{descriptor.digest} ({descriptor.media_type}) has {descriptor.size} bytes, more "
                f"than the {limit} that a part of a signature may have",
                limit=limit,
                actual=descriptor.size,
            )
        blob = RemoteBlob(descriptor.digest, descriptor.size, self._repository, document=document)
        return self._transfer.read(blob, cancel=self._cancel)
