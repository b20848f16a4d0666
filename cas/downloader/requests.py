"""What the downloader is asked, and what it answers; no behaviour."""

__all__ = [
    "Content",
    "DescriptorForm",
    "Descriptors",
    "Fetch",
    "Fetched",
    "FindTag",
    "Options",
    "Read",
    "Referrers",
    "Request",
    "Resolve",
    "Stat",
    "Status",
]

import msgspec

from cas.datastores.terms import FetchPolicy
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the downloader is started for.

    Args:
        source: The datastore, as :func:`cas.datastores.settings.encode_settings` writes it.
        policy: How patient its transfers are.
        file_bytes: What the largest file may have that it is asked for.
    """

    source: msgspec.Raw
    policy: FetchPolicy
    file_bytes: int


class Fetch(msgspec.Struct, frozen=True, tag="fetch", forbid_unknown_fields=True):
    """Bring an object into the directory, going on with what an earlier call left.

    Args:
        name: Of the file, as :class:`cas.model.transfer_name.TransferName` writes it; its digest
            is the one that is claimed.
        path: Of the object, as the datastore names it; of a registry, the repository.
        size: Bytes that it must have; None if nobody knows.
        max_bytes: Bytes that it may have.
        document: It is a manifest or index of a registry.
    """

    name: str
    path: str
    size: int | None
    max_bytes: int
    document: bool


class Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file is there, unverified.

    Args:
        size: Its bytes.
        received: Bytes that came over the network this time.
    """

    size: int
    received: int


class Stat(msgspec.Struct, frozen=True, tag="stat", forbid_unknown_fields=True):
    """Ask about an object.

    Args:
        path: As the datastore names it.
    """

    path: str


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the datastore says.

    Args:
        size: None if it does not say.
        media_type: Empty if it does not say.
    """

    size: int | None
    media_type: str


class Read(msgspec.Struct, frozen=True, tag="read", forbid_unknown_fields=True):
    """Give a small object itself, unverified; for what proves itself, such as a signature.

    Args:
        path: As the datastore names it.
        max_bytes: Bytes that it may have.
    """

    path: str
    max_bytes: int


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All bytes of a small object."""

    data: bytes


class Resolve(msgspec.Struct, frozen=True, tag="resolve", forbid_unknown_fields=True):
    """Say what a reference points to at this moment.

    Args:
        reference: Of an image, in canonical form.
    """

    reference: str


class FindTag(msgspec.Struct, frozen=True, tag="find-tag", forbid_unknown_fields=True):
    """Say what a tag points to, if it exists.

    Args:
        repository: In the registry.
        tag: The tag.
    """

    repository: str
    tag: str


class Referrers(msgspec.Struct, frozen=True, tag="referrers", forbid_unknown_fields=True):
    """List the manifests that name another one as their subject.

    Args:
        repository: In the registry.
        digest: Of the subject.
        artifact_type: Of those that come first.
    """

    repository: str
    digest: str
    artifact_type: str


class DescriptorForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A descriptor on its way between processes."""

    media_type: str
    digest: str
    size: int

    @classmethod
    def of(cls, descriptor: Descriptor) -> "DescriptorForm":
        """Write."""
        return cls(descriptor.media_type, str(descriptor.digest), descriptor.size)

    def read(self) -> Descriptor:
        """Read; raises ``InvalidNameError`` or ``MalformedDocumentError``."""
        return Descriptor(self.media_type, Digest.parse(self.digest), self.size)


class Descriptors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer of a registry, best first where there is an order."""

    found: list[DescriptorForm]


Request = Fetch | Stat | Read | Resolve | FindTag | Referrers
