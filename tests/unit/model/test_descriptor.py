"""Descriptors and platforms as values."""

import pytest

from cas.errors import MalformedDocumentError
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest

DIGEST = Digest.of(b"")


@pytest.mark.parametrize(("media_type", "size"), [("", 0), ("text/plain", -1)])
def test_descriptor_without_type_or_with_negative_size_is_refused(
    media_type: str, size: int
) -> None:
    """A descriptor that says nothing useful cannot be made."""
    with pytest.raises(MalformedDocumentError):
        Descriptor(media_type, DIGEST, size)


def test_descriptor_annotations_do_not_count_for_equality() -> None:
    """Two descriptors of one blob are equal whatever is noted beside them."""
    one = Descriptor("text/plain", DIGEST, 0, annotations={"a": "b"})
    assert one == Descriptor("text/plain", DIGEST, 0)
    assert len({one, Descriptor("text/plain", DIGEST, 0)}) == 1


def test_platform_prints_without_empty_variant() -> None:
    """The variant is left out where there is none."""
    assert str(Platform("linux", "arm64")) == "linux/arm64"
    assert str(Platform("linux", "arm", "v7")) == "linux/arm/v7"
