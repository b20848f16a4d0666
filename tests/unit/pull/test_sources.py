"""From references and URLs to the settings of datastores."""

import base64
import json
from pathlib import Path

import pytest

from cas.errors import ConfigError, InvalidNameError
from cas.model.download_settings import DownloadSettings
from cas.pull.sources import file_uuid, registry_settings, split_url, url_settings


@pytest.fixture
def download(tmp_path: Path) -> DownloadSettings:
    return DownloadSettings(hosts_directory=tmp_path / "hosts")


@pytest.mark.parametrize(
    ("url", "base", "path"),
    [
        ("https://h/a/b.img", "https://h/a", "b.img"),
        ("https://h/b.img?sig=x/y", "https://h?sig=x/y", "b.img"),
        ("s3://bucket/deep/key", "s3://bucket/deep", "key"),
        ("file:///var/images/a.qcow2", "file:///var/images", "a.qcow2"),
        ("sftp://u@h:2222/a", "sftp://u@h:2222", "a"),
    ],
)
def test_url_of_a_file_is_split_into_datastore_and_name(url: str, base: str, path: str) -> None:
    """A signature in the query belongs to the datastore."""
    assert split_url(url) == (base, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "name",
        "https://h",
        "https://h/",
        "/a/b",
        "http://[x/a",
        "file:///a",
        "file://localhost/a",
    ],
)
def test_url_that_names_no_file_is_refused(url: str) -> None:
    """And none of its secrets is told."""
    with pytest.raises(InvalidNameError):
        split_url(url)


def test_secrets_of_a_refused_url_are_not_told() -> None:
    """User, password and query stay out of the message."""
    with pytest.raises(InvalidNameError) as caught:
        split_url("https://user:hunter2@h/?token=hunter2")

    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("registry", "plain"),
    [
        ("127.0.0.1:5000", True),
        ("localhost", True),
        ("[::1]:5000", True),
        ("localhost.example.com", False),
        ("registry.example.com", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_only_a_registry_on_this_machine_is_talked_to_without_tls(
    registry: str, plain: bool, download: DownloadSettings
) -> None:
    """As docker does it."""
    assert registry_settings(download, registry).plain_http is plain


def test_registry_has_its_credentials_mirrors_and_authorities(tmp_path: Path) -> None:
    """Everything travels as text; the downloader opens no file."""
    hosts = tmp_path / "hosts" / "registry.example.com"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text('[host."https://mirror.example.com"]\n')
    docker = tmp_path / "config.json"
    auth = base64.b64encode(b"alice:secret").decode()
    docker.write_text(json.dumps({"auths": {"registry.example.com": {"auth": auth}}}))
    (tmp_path / "ca.pem").write_text("a certificate")

    settings = registry_settings(
        DownloadSettings(
            hosts_directory=tmp_path / "hosts", docker_config=docker, ca_file=tmp_path / "ca.pem",
            https_proxy="http://proxy.example.com", no_proxy="localhost",
        ),
        "registry.example.com",
    )  # fmt: skip

    assert settings.credentials.username == "alice"
    assert settings.credentials.password.reveal() == "secret"
    assert [mirror.url for mirror in settings.mirrors] == ["https://mirror.example.com"]
    assert settings.transport.ca_pem == "a certificate"
    assert settings.transport.proxies.https.reveal() == "http://proxy.example.com"
    assert settings.transport.proxies.bypass == "localhost"


@pytest.mark.parametrize("data", [None, b"\xff\xfe"])
def test_authorities_that_cannot_be_read_are_a_wrong_configuration(
    data: bytes | None, tmp_path: Path
) -> None:
    """A file that is not there, or is not PEM."""
    path = tmp_path / "ca.pem"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(ConfigError):
        url_settings(DownloadSettings(ca_file=path), "https://h/a")


def test_file_has_one_uuid_whatever_the_credentials() -> None:
    """A password that were in it could be tried out on the name of a file."""
    plain = file_uuid("https://h/a.img")

    assert file_uuid("https://user:secret@h/a.img?sig=x") == plain
    assert file_uuid("https://h/b.img") != plain
