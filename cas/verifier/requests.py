"""What the verifier is asked, and what it answers; no behaviour."""

__all__ = [
    "CheckCosign",
    "CheckDetached",
    "Options",
    "Request",
    "Signature",
    "SignedBy",
    "Verified",
    "Verify",
]

import msgspec


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the verifier is started for.

    Args:
        signatures: Whether it will have to check some.
    """

    signatures: bool


class Verify(msgspec.Struct, frozen=True, tag="verify", forbid_unknown_fields=True):
    """Hash a file in ``pending`` and publish it in ``verified``, or remove it.

    Args:
        name: Of the file, as :class:`cas.model.transfer_name.TransferName` writes it.
        size: Bytes that it must have; None if nobody knows.
    """

    name: str
    size: int | None


class Verified(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file was what it was said to be, and is durable under its new name.

    Args:
        size: Its bytes.
    """

    size: int


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature of an image.

    Args:
        payload: The signed document.
        signature: In base64.
    """

    payload: bytes
    signature: str


class CheckCosign(msgspec.Struct, frozen=True, tag="check-cosign", forbid_unknown_fields=True):
    """Find a key that signed an image.

    Args:
        image: Digest of its manifest or index.
        signatures: All that there are.
        keys: PEM.
        identity: Pattern for the name in the signed document; empty takes any.
    """

    image: str
    signatures: list[Signature]
    keys: list[str]
    identity: str


class CheckDetached(msgspec.Struct, frozen=True, tag="check-detached", forbid_unknown_fields=True):
    """Find a key that signed a file in ``verified``.

    Args:
        content: Its digest.
        signature: Raw, or in base64 once more than the message itself.
        keys: PEM.
    """

    content: str
    signature: bytes
    keys: list[str]


class SignedBy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the keys signed.

    Args:
        key: Its place in the list.
    """

    key: int


Request = Verify | CheckCosign | CheckDetached
