"""Names of files between downloader and store."""

from uuid import UUID

import pytest

from cas.errors import InvalidNameError
from cas.model.digest import Digest
from cas.model.transfer_name import TransferName, image_uuid

IMAGE = UUID("7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34")
DIGEST = Digest("ab" * 32)


def test_name_reads_back_what_it_writes() -> None:
    """UUID, dot, hex digits; as the layout says."""
    name = TransferName(IMAGE, DIGEST)

    assert str(name) == f"7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34.{'ab' * 32}"
    assert TransferName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{IMAGE}",
        f"{IMAGE}.{'ab' * 31}",
        f"{IMAGE}.{'AB' * 32}",
        f"{str(IMAGE).upper()}.{'ab' * 32}",
        f"{IMAGE}.sha256:{'ab' * 32}",
        f"../{IMAGE}.{'ab' * 32}",
        f"{IMAGE}.{'ab' * 32}/..",
        f"{IMAGE}.{'ab' * 32}.partial",
        f"{IMAGE}.{'ab' * 32}\n",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """No path can be made of a name that parses."""
    with pytest.raises(InvalidNameError):
        TransferName.parse(text)


def test_uuid_of_a_reference_is_always_the_same() -> None:
    """A transfer that is begun again, after a reboot too, finds what it had."""
    assert image_uuid("docker.io/library/a:1") == image_uuid("docker.io/library/a:1")
    assert image_uuid("docker.io/library/a:1") != image_uuid("docker.io/library/a:2")
