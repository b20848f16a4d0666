"""Wire form of the JSON documents of images: names and types of their fields, nothing more.

Unknown fields are ignored, as the specifications ask. Only :mod:`cas.model.documents` works with
these classes.
"""

__all__ = [
    "ArchiveEntryForm",
    "ConfigForm",
    "DescriptorForm",
    "IndexForm",
    "LayoutForm",
    "ManifestForm",
    "PlatformForm",
    "RootFsForm",
    "RunForm",
    "decode",
]

from typing import TypeVar

import msgspec

from cas.errors import LimitExceededError, MalformedDocumentError
from cas.model.limits import Limits

_Form = TypeVar("_Form")


class PlatformForm(msgspec.Struct):
    """``platform`` of a descriptor."""

    os: str = ""
    architecture: str = ""
    variant: str | None = None


class DescriptorForm(msgspec.Struct, rename="camel"):
    """A content descriptor."""

    digest: str
    size: int
    media_type: str = ""
    platform: PlatformForm | None = None
    annotations: dict[str, str] | None = None
    urls: list[str] | None = None
    artifact_type: str | None = None


class ManifestForm(msgspec.Struct, rename="camel"):
    """An image manifest."""

    config: DescriptorForm
    layers: list[DescriptorForm] | None = None
    schema_version: int = 0
    media_type: str | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class IndexForm(msgspec.Struct, rename="camel"):
    """An image index."""

    manifests: list[DescriptorForm] | None
    schema_version: int = 0
    media_type: str | None = None
    annotations: dict[str, str] | None = None


class RootFsForm(msgspec.Struct):
    """``rootfs`` of an image config."""

    diff_ids: list[str] | None = None


class RunForm(msgspec.Struct):
    """``config`` of an image config: what to run."""

    Labels: dict[str, str] | None = None


class ConfigForm(msgspec.Struct):
    """An image config."""

    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    rootfs: RootFsForm | None = None
    config: RunForm | None = None


class LayoutForm(msgspec.Struct, rename="camel"):
    """The file ``oci-layout``."""

    image_layout_version: str


class ArchiveEntryForm(msgspec.Struct, rename="pascal"):
    """An element of a docker archive's ``manifest.json``."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


def decode(raw: bytes, form: type[_Form], what: str, limits: Limits) -> _Form:
    """Decode JSON strictly into ``form``.

    Raises:
        MalformedDocumentError: Not JSON, a field missing or of another type, nested too deeply.
        LimitExceededError: More bytes than a document may have.
    """
    if len(raw) > limits.document_bytes:
        raise LimitExceededError(
            f"{what} has {len(raw)} bytes, more than the {limits.document_bytes} that a document "
            "may have",
            limit=limits.document_bytes,
            actual=len(raw),
        )
    try:
        return msgspec.json.decode(raw, type=form)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise MalformedDocumentError(f"{what} is not the document it must be: {error}") from error
    except RecursionError as error:
        raise MalformedDocumentError(f"{what} is nested too deeply") from error
