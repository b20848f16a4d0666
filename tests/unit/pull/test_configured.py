"""Which table of the configuration is for a URL, and what is read for it."""

from pathlib import Path

import pytest

from cas.datastores.settings import Credentials, SourceSettings
from cas.errors import ConfigError, InvalidNameError
from cas.model.datastore_settings import DatastoreSettings
from cas.model.download_settings import DownloadSettings
from cas.pull.sources import url_settings

PREFIXES = (
    "https://example.com",
    "https://example.com/team/",
    "https://example.com/team/one.img",
    "https://example.com:8443",
    "s3://bucket/team",
)


def found(url: str) -> str:
    """The prefix whose table is for a URL; each names itself as the region."""
    tables = {prefix: DatastoreSettings(region=prefix) for prefix in PREFIXES}
    return url_settings(DownloadSettings(datastores=tables), url)[0].region


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("https://example.com/x", "https://example.com"),
        ("https://user@EXAMPLE.com:443/x?y", "https://example.com"),
        ("https://example.com/team/x", "https://example.com/team/"),
        ("https://example.com/team/a/x", "https://example.com/team/"),
        ("https://example.com/team/one.img?sig=1", "https://example.com/team/one.img"),
        ("https://example.com/teams/x", "https://example.com"),
        ("https://example.com:8443/team/x", "https://example.com:8443"),
        ("s3://bucket/team/x", "s3://bucket/team"),
        ("s3://bucket/x", ""),
        ("http://example.com/x", ""),
        ("https://example.com.evil.org/x", ""),
        ("https://example.com@evil.org/x", ""),
        ("https://sub.example.com/x", ""),
    ],
)
def test_longest_prefix_of_the_same_server_is_the_one(url: str, prefix: str) -> None:
    """It ends where a name ends: no other server gets the credentials."""
    assert found(url) == prefix


@pytest.mark.parametrize("url", ["https://evil.org\\@example.com/x", "https://example.com:x/y"])
def test_url_that_two_readers_take_for_two_servers_is_none(url: str) -> None:
    """Rather than sent credentials of one."""
    with pytest.raises(InvalidNameError):
        found(url)


def settings_with(
    table: DatastoreSettings, credentials: Credentials | None = None
) -> SourceSettings:
    download = DownloadSettings(datastores={"https://h": table})
    return url_settings(download, "https://h/x", credentials)[0]


def written(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "file"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_password_is_the_text_of_its_file_without_the_line_end(tmp_path: Path) -> None:
    """As an editor writes it."""
    table = DatastoreSettings(username="u", password_file=written(tmp_path, " pass word \n"))

    credentials = settings_with(table).credentials

    assert (credentials.username, credentials.password.reveal()) == ("u", " pass word ")


def test_headers_are_read_with_their_values_hidden(tmp_path: Path) -> None:
    """A comment and an empty line are none."""
    text = "# for the gate\nX-Key: hunter2\n\nAuthorization:Bearer a:b=\n"
    headers = settings_with(
        DatastoreSettings(headers_file=written(tmp_path, text))
    ).transport.headers

    assert {name: value.reveal() for name, value in headers.items()} == {
        "X-Key": "hunter2",
        "Authorization": "Bearer a:b=",
    }
    assert "hunter2" not in str(headers)


def test_credentials_of_the_caller_win(tmp_path: Path) -> None:
    """Whoever names some means them."""
    table = DatastoreSettings(username="u", password_file=written(tmp_path, "p"))
    own = Credentials(username="own")

    assert settings_with(table, own).credentials == own


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_secret_that_others_may_reach_is_refused(mode: int, tmp_path: Path) -> None:
    """As ssh does."""
    table = DatastoreSettings(password_file=written(tmp_path, "p", mode))

    with pytest.raises(ConfigError, match="go-rwx"):
        settings_with(table)


@pytest.mark.parametrize("text", ["no header", "a b: c", ": x", "X: a\x01b"])
def test_line_that_is_no_header_is_named_and_not_quoted(text: str, tmp_path: Path) -> None:
    """It may be half a secret."""
    table = DatastoreSettings(headers_file=written(tmp_path, f"X: y\n{text} hunter2\n"))

    with pytest.raises(ConfigError, match="line 2") as caught:
        settings_with(table)

    assert "hunter2" not in caught.value.message


def test_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(ConfigError, match="absent cannot be read"):
        settings_with(DatastoreSettings(ca_file=tmp_path / "absent"))
