"""Under which name a signature policy looks for content."""

import pytest

from cas.errors import InvalidNameError
from cas.model.policy_name import policy_name
from cas.model.reference import ImageReference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("registry.example/repo:stable", "registry.example/repo:stable"),
        ("REGISTRY.example/repo:stable", "registry.example/repo:stable"),
        ("registry.example:443/repo:stable", "registry.example/repo:stable"),
        ("registry.example:05000/repo:stable", "registry.example:5000/repo:stable"),
        (f"registry.example/repo:stable@{DIGEST}", "registry.example/repo:stable"),
        (f"registry.example/repo@{DIGEST}", f"registry.example/repo@{DIGEST}"),
        ("[::1]/repo:a", "[::1]/repo:a"),
        ("[::1]:5000/repo:a", "[::1]:5000/repo:a"),
        ("[0:0::1]:5000/repo:a", "[::1]:5000/repo:a"),
        ("10.0.0.5:5000/repo:a", "10.0.0.5:5000/repo:a"),
        ("busybox", "docker.io/library/busybox:latest"),
        ("registry-1.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("Index.docker.io:443/library/busybox", "docker.io/library/busybox:latest"),
    ],
)
def test_references_of_one_image_have_one_name(text: str, name: str) -> None:
    """No spelling gets around a rule."""
    assert policy_name(ImageReference.parse(text)) == name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("HTTPS://DL.Example/fw/x", "https://dl.example/fw/x"),
        ("https://u:p@dl.example:443/fw/x?sig=a#b", "https://dl.example/fw/x"),
        ("https://dl.example.:8443/fw/x", "https://dl.example:8443/fw/x"),
        ("http://dl.example:80/fw/a%20b", "http://dl.example/fw/a%20b"),
        ("file:///var/images/a", "file:///var/images/a"),
        ("s3://2024/fw/x", "s3://2024/fw/x"),
        ("https://[2001:DB8:0::1]:443/x", "https://[2001:db8::1]/x"),
        ("oci://registry.example:443/app", "registry.example/app"),
        ("docker://Registry-1.docker.io/library/app", "docker.io/library/app"),
    ],
)
def test_urls_of_one_file_have_one_name(url: str, name: str) -> None:
    """Case, default port, user and query do not count."""
    assert policy_name(url) == name


@pytest.mark.parametrize(
    "rest",
    ["/%66w/x", "/a/../fw/x", "/./fw/x", "//fw/x", "/fw%2Fx", "/a/%2e%2E/fw", "/fw\\x", "/f w"],
)
def test_url_that_can_be_read_in_several_ways_is_refused(rest: str) -> None:
    """A server may see another path in it than the policy does."""
    with pytest.raises(InvalidNameError, match="write it without them"):
        policy_name(f"https://dl.example{rest}")


@pytest.mark.parametrize(
    "host",
    [
        "dl.ex%61mple",
        "\uff44l.example",
        "b\xfccher.example",
        "127.1",
        "2130706433",
        "0x7f.1",
        "127.0.0.01",
        "[::ffff:127.0.0.1]",
        "[fe80::1%25eth0]",
        "[::1",
    ],
)
@pytest.mark.parametrize("scheme", ["https", "sftp", "docker"])
def test_host_that_is_spelled_in_another_way_is_refused(scheme: str, host: str) -> None:
    """It leads to the server of the plain spelling, whose rule would not count."""
    with pytest.raises(InvalidNameError):
        policy_name(f"{scheme}://{host}/fw/x")


@pytest.mark.parametrize("host", ["10.5", "10.0.5:5000", "0x7f.1"])
def test_registry_that_is_spelled_in_another_way_is_refused(host: str) -> None:
    """As a host of files is."""
    with pytest.raises(InvalidNameError, match="cannot tell"):
        policy_name(ImageReference.parse(f"{host}/repo:a"))
