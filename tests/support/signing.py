"""Signatures as cosign and openssl make them, published on a registry of the test's own."""

__all__ = ["KINDS", "Signer", "signature_image", "simple_signing"]

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.images import OCI_MANIFEST, BuiltImage, descriptor, digest_of, encode

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
KINDS = ("ecdsa", "ed25519", "rsa")


class Signer:
    """A key pair of one kind.

    Args:
        kind: One of :data:`KINDS`.
    """

    def __init__(self, kind: str = "ecdsa") -> None:
        self._key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
        match kind:
            case "ecdsa":
                self._key = ec.generate_private_key(ec.SECP256R1())
            case "ed25519":
                self._key = ed25519.Ed25519PrivateKey.generate()
            case _:
                self._key = rsa.generate_private_key(65537, 2048)

    def write_public_key(self, path: Path) -> None:
        """Write the public half as PEM."""
        public = self._key.public_key()
        path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        path.chmod(0o644)

    def sign(self, data: bytes) -> bytes:
        """Sign bytes."""
        match self._key:
            case ec.EllipticCurvePrivateKey():
                return self._key.sign(data, ec.ECDSA(SHA256()))
            case ed25519.Ed25519PrivateKey():
                return self._key.sign(data)
            case rsa.RSAPrivateKey():
                return self._key.sign(data, padding.PKCS1v15(), SHA256())


def simple_signing(digest: str, name: str) -> bytes:
    """The document that cosign signs."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return encode({"critical": critical, "optional": None})


def signature_image(
    payload: bytes, signature: bytes, media_type: str = SIMPLE_SIGNING
) -> BuiltImage:
    """The manifest under which cosign keeps a signature, with its blobs."""
    config = json.dumps({"architecture": "", "os": ""}).encode()
    layer = descriptor(media_type, payload) | {
        "annotations": {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()}
    }
    manifest = encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [layer],
        }
    )
    blobs = {digest_of(data): data for data in (config, payload, manifest)}
    return BuiltImage(descriptor(OCI_MANIFEST, manifest), blobs)
