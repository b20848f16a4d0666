"""Mirrors in the manner of containerd."""

from pathlib import Path

import pytest

from cas.datastores.registry.hosts_toml import with_hosts
from cas.datastores.settings import Credentials, SourceSettings, TransportSettings
from cas.errors import ConfigError

SETTINGS = SourceSettings(
    url="docker://r.example:5000", transport=TransportSettings(connect_seconds=3)
)
TEXT = """
server = "https://real.example"
ca = "server.pem"

[host."https://first.example/prefix"]
  capabilities = ["pull"]
  ca = ["a.pem", "b.pem"]
  override_path = true
  [host."https://first.example/prefix".header]
    x-key = "value"
    x-list = ["a", "b"]

[host."http://second.example:8080"]
  skip_verify = true
"""


def _write(directory: Path, name: str, text: str) -> Path:
    place = directory / name
    place.mkdir()
    (place / "hosts.toml").write_text(text)
    for pem in ("server", "a", "b"):
        (place / f"{pem}.pem").write_text(f"PEM {pem}")
    return directory


def test_hosts_of_a_registry_become_its_mirrors_in_order(tmp_path: Path) -> None:
    """Capabilities, trust and headers of each; the time limits are those of the registry."""
    settings = with_hosts(
        SETTINGS,
        "r.example:5000",
        _write(tmp_path, "r.example:5000", TEXT),
        lambda host: Credentials(username=host),
    )

    first, second = settings.mirrors
    assert settings.endpoint == "https://real.example"
    assert settings.transport.ca_pem == "PEM server"
    assert first.url == "https://first.example/prefix"
    assert (first.resolves, first.pulls, first.override_path) == (False, True, True)
    assert first.transport.ca_pem == "PEM a\nPEM b"
    assert first.transport.headers["x-key"].reveal() == "value"
    assert first.transport.headers["x-list"].reveal() == "a, b"
    assert first.transport.connect_seconds == 3
    assert first.credentials.username == "first.example"
    assert (second.resolves, second.transport.insecure) == (True, True)
    assert second.credentials.username == "second.example:8080"


@pytest.mark.parametrize(
    ("client", "read"),
    [
        ('"a.pem"', ["PEM a"]),
        ('["a.pem", "b.pem"]', ["PEM a", "PEM b"]),
        ('[["a.pem", "b.pem"], ["server.pem", ""]]', ["PEM a\nPEM b", "PEM server"]),
    ],
)
def test_client_certificates_are_read_in_each_of_containerds_forms(
    tmp_path: Path, client: str, read: list[str]
) -> None:
    """Certificate and key in one file, or in two; those of a mirror are not the registry's."""
    text = f'client = "server.pem"\n[host."https://x"]\nclient = {client}\n'
    settings = with_hosts(SETTINGS, "r.example:5000", _write(tmp_path, "r.example:5000", text))

    assert [pem.reveal() for pem in settings.transport.client_pem] == ["PEM server"]
    (mirror,) = settings.mirrors
    assert [pem.reveal() for pem in mirror.transport.client_pem] == read


@pytest.mark.parametrize("name", ["r.example_5000_", "r.example:5000", "_default"])
def test_directory_of_a_registry_is_found_by_containerds_names(tmp_path: Path, name: str) -> None:
    """With the port in either form, or the default one."""
    directory = _write(tmp_path, name, 'server = "https://x"')

    assert with_hosts(SETTINGS, "r.example:5000", directory).endpoint == "https://x"


def test_registry_without_a_directory_keeps_its_settings(tmp_path: Path) -> None:
    """Nor does the directory of all have to exist."""
    _write(tmp_path, "other.example", TEXT)

    assert with_hosts(SETTINGS, "r.example:5000", tmp_path) is SETTINGS
    assert with_hosts(SETTINGS, "r.example:5000", tmp_path / "absent") is SETTINGS


@pytest.mark.parametrize(
    "text",
    [
        "=",
        "server = 1",
        'ca = "absent.pem"',
        '[host."https://x"]\nclient = "absent.pem"',
        "client = 1",
        "client = [[1]]",
        "\xff",
    ],
)
def test_file_that_cannot_be_followed_is_an_error(tmp_path: Path, text: str) -> None:
    """A mirror's configuration that silently has no effect is worse than none."""
    directory = _write(tmp_path, "r.example:5000", text)

    with pytest.raises(ConfigError, match=r"hosts\.toml|absent\.pem"):
        with_hosts(SETTINGS, "r.example:5000", directory)
