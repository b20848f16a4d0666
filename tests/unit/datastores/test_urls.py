"""URLs of objects."""

import pytest

from cas.datastores.http.urls import is_loopback, join_url, origin_of, split_user
from cas.errors import ConfigError


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("https://h/b", "o", "https://h/b/o"),
        ("https://h/b/", "/o", "https://h/b/o"),
        ("https://h", "a/../o", "https://h/a/../o"),
        ("https://h/b?sig=%2F", "o", "https://h/b/o?sig=%2F"),
        ("https://h/b?sig=1", "o?own=2", "https://h/b/o?sig=1&own=2"),
        ("https://h/b/c.img?sig=1", "", "https://h/b/c.img?sig=1"),
        ("https://h/b#part", "o", "https://h/b/o"),
        ("https://h/b", "a%20b?c=d?e", "https://h/b/a%20b?c=d?e"),
    ],
)
def test_join_url_keeps_every_byte_of_path_and_query(base: str, path: str, url: str) -> None:
    """Signatures cover them."""
    assert join_url(base, path) == url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://h/p?q", ("https://h/p?q", "", "")),
        ("https://u:p%40@h:1/p", ("https://h:1/p", "u", "p@")),
        ("https://u@h/p@q", ("https://h/p@q", "u", "")),
    ],
)
def test_split_user_takes_user_and_password_out(url: str, parts: tuple[str, str, str]) -> None:
    """Decoded; everything else stays."""
    assert split_user(url) == parts


@pytest.mark.parametrize("url", ["", "h", "https://", "https://:1/", "https://h:x/", "https://[h/"])
def test_split_user_of_no_url_is_a_configuration_error(url: str) -> None:
    """Without quoting it: there may be a password in it."""
    with pytest.raises(ConfigError):
        split_user(url)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1.example.org", False),
        ("localhost.example.org", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback_is_this_machine_only(host: str, loopback: bool) -> None:
    """Credentials may go there in clear."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("HTTPS://Host/x", ("https", "host", 443)),
        ("http://[::1]:5000/", ("http", "::1", 5000)),
        ("http://evil:1\\@good:2/x", ("http", "evil", 1)),
    ],
)
def test_origin_is_where_the_connection_goes(url: str, origin: tuple[str, str, int]) -> None:
    """Not what another parser makes of the same text."""
    assert origin_of(url) == origin
