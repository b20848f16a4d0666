"""Checks signatures over files that were verified; runs in the verifier's process.

Keys come from the device's policy, everything else from strangers. Nothing here decides what has to
be signed.
"""

__all__ = ["CosignSignature", "check_cosign", "check_detached", "preload"]

import base64
import binascii
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from cas.errors import ConfigError, SignatureError
from cas.fsops.reading import open_regular
from cas.model.digest import Digest
from cas.model.policy_name import identity_name
from cas.verifier.verification import VERIFIED

_TYPES = ("cosign container image signature", "atomic container signature")
_PublicKey = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey


class _Identity(msgspec.Struct):
    docker_reference: str = msgspec.field(name="docker-reference")


class _Image(msgspec.Struct):
    docker_manifest_digest: str = msgspec.field(name="docker-manifest-digest")


class _Critical(msgspec.Struct):
    identity: _Identity
    image: _Image
    type: str


class _Payload(msgspec.Struct):
    critical: _Critical


@dataclass(frozen=True, slots=True)
class CosignSignature:
    """One signature as a registry keeps it.

    Args:
        payload: The signed document.
        signature: In base64.
    """

    payload: bytes
    signature: str


def preload() -> None:
    """Use every kind of key once: the library below imports what it needs when it needs it."""
    keys = (
        generate_private_key(SECP256R1()).public_key(),
        Ed25519PrivateKey.generate().public_key(),
        RSAPublicNumbers(65537, 2**2047 + 1).public_key(),
    )
    for key in keys:
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with suppress(SignatureError):
            _signer([_load(pem)], b"nothing", Digest.of(b""), memoryview(b""))
    with suppress(ConfigError):
        _load("no key")


def check_cosign(
    image: Digest, signatures: Sequence[CosignSignature], keys: Sequence[str], identity: str
) -> int:
    """Find a key that signed an image.

    Args:
        image: Digest of its manifest or index.
        signatures: All that there are.
        keys: PEM.
        identity: Pattern that the name in the signed document must match; empty takes any.

    Returns:
        Which of the keys.

    Raises:
        SignatureError: None of the signatures is by one of the keys and for this image.
        ConfigError: A key is no public key of a kind that is understood.

    Source: cosign's specification of signatures and of their payload ("simple signing").
    """
    loaded = [_load(key) for key in keys]
    reasons = []
    for each in signatures:
        try:
            return _check_one(image, each, loaded, identity)
        except SignatureError as error:
            reasons.append(error.message)
    told = "; ".join(dict.fromkeys(reasons)) or "it has none"
    raise SignatureError(f"no signature of {image} is acceptable: {told}", digest=image)


def _check_one(
    image: Digest, signature: CosignSignature, keys: Sequence[_PublicKey], identity: str
) -> int:
    payload = signature.payload
    number = _signer(keys, _decoded(signature.signature), Digest.of(payload), memoryview(payload))
    # Parsed only now: what a key of ours signed is not from strangers.
    try:
        critical = msgspec.json.decode(payload, type=_Payload).critical
    except msgspec.DecodeError as error:
        raise SignatureError(f"the signed document cannot be understood ({error})") from error
    if critical.type not in _TYPES or critical.image.docker_manifest_digest != str(image):
        signed = critical.image.docker_manifest_digest
        raise SignatureError(f"the signature is for another content ({signed[:100]})")
    name = critical.identity.docker_reference
    if identity and not fnmatchcase(identity_name(name), identity):
        raise SignatureError(f"it was signed as {name[:200]!r}, which {identity!r} does not match")
    return number


def check_detached(directory: Path, content: Digest, signature: bytes, keys: Sequence[str]) -> int:
    """Find a key that signed a file.

    ECDSA and RSA with SHA-256, or Ed25519, over the bytes of the whole file; the signature raw or
    in base64.

    Returns:
        Which of the keys.

    Raises:
        SignatureError: None of them did.
        ConfigError: A key is no public key of a kind that is understood.
    """
    loaded = [_load(key) for key in keys]
    try:
        raw = _decoded(signature.decode("ascii").strip())
    except (SignatureError, UnicodeDecodeError):
        raw = signature
    with _mapped(directory / VERIFIED / content.hex) as data:
        return _signer(loaded, raw, content, data)


def _load(pem: str) -> _PublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"a key of the signature policy cannot be read: {error}") from error
    if not isinstance(key, _PublicKey):
        raise ConfigError(
            f"a key of the signature policy is of the kind {type(key).__name__}; ECDSA, Ed25519 "
            "and RSA are understood"
        )
    return key


def _signer(keys: Sequence[_PublicKey], signature: bytes, digest: Digest, data: memoryview) -> int:
    for number, key in enumerate(keys):
        try:
            _verify(key, signature, digest, data)
        except InvalidSignature:
            continue
        return number
    raise SignatureError("it was not made by a key of the policy")


def _verify(key: _PublicKey, signature: bytes, digest: Digest, data: memoryview) -> None:
    # The digest was proven when the file got its name.
    hashed, algorithm = bytes.fromhex(digest.hex), Prehashed(SHA256())
    match key:
        case Ed25519PublicKey():
            key.verify(signature, data)
        case EllipticCurvePublicKey():
            key.verify(signature, hashed, ECDSA(algorithm))
        case RSAPublicKey():
            key.verify(signature, hashed, padding.PKCS1v15(), algorithm)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError("it is not in base64") from error


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    """Give a verified file without reading it into memory; nobody can change it."""
    with open_regular(path) as file:
        if file.size == 0:
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data, memoryview(data) as view:
            yield view
