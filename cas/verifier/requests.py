"""What the verifier is asked, and what it answers; no behaviour."""

__all__ = ["NoOptions", "Verified", "Verify"]

import msgspec


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The verifier is the same whatever it is started for."""


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
