"""What is shown of texts that may hold secrets."""

from collections.abc import Callable

import pytest

from cas.datastores.redaction import redact, redact_url
from cas.datastores.secret import NO_SECRET, Secret

HIDDEN = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://bob:{HIDDEN}@host:8443/a/b", "https://host:8443/a/b"),
        (f"https://host/blob?sv=1&sig={HIDDEN}%2F", "https://host/blob?***"),
        (f"https://host/a#{HIDDEN}", "https://host/a"),
        (f"sftp://{HIDDEN}@host/x", "sftp://host/x"),
        ("https://[::1]:5000/v2/", "https://[::1]:5000/v2/"),
        (f"https://[{HIDDEN}", "***"),
        ("docker://docker.io", "docker://docker.io"),
    ],
)
def test_redact_url_keeps_the_place_and_hides_the_rest(url: str, shown: str) -> None:
    """Scheme, host and path stay; user, query and fragment do not."""
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://bob:{HIDDEN}@host/x failed",
        f"Max retries exceeded with url: /c/blob?sv=2&sig={HIDDEN}&se=1 (Caused by X)",
        f"Max retries exceeded with url: /v2/?a={HIDDEN}",
        f"GET /x??sig={HIDDEN} failed",
        f"GET /x?a???sig={HIDDEN} failed",
        f"GET /x(1)?sig={HIDDEN} failed",
        f"no such query: '?sig={HIDDEN}'",
        f"'Authorization': 'Basic {HIDDEN}=='",
        f"header authorization: Bearer {HIDDEN}.x.y was refused",
        f"password={HIDDEN}",
        f'{{"identitytoken": "{HIDDEN}"}}',
        f"X-Api-Key: {HIDDEN}",
        f"AWS_SECRET_ACCESS_KEY={HIDDEN}",
        f"x-amz-security-token:{HIDDEN}",
    ],
)
def test_redact_text_with_a_secret_hides_it(text: str) -> None:
    """Whatever form a library writes it in."""
    shown = redact(text)

    assert HIDDEN not in shown
    assert "***" in shown or "@" not in shown


def test_redact_text_without_secrets_keeps_its_words() -> None:
    """A message stays useful."""
    text = "connection to 127.0.0.1:5000 refused: what now? (errno 111)"

    assert redact(text) == text


def test_redact_long_text_of_many_lines_gives_one_short_line() -> None:
    """A hostile server does not flood a log or forge lines in it."""
    shown = redact("line\r\n" * 10_000)

    assert len(shown) <= 2000
    assert "\n" not in shown


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "password",
        "api-",
        "token'",
        "a.",
        "http://",
        "?",
        "?a",
        "?a=",
        "bearer ",
        "secret = ",
        "\"':",
    ],
)
def test_redact_text_that_is_made_to_be_slow_is_quick(piece: str) -> None:
    """A server writes what it likes, and nobody can interrupt a pattern."""
    for _ in range(20):
        redact(piece * 10_000)


def test_redact_pair_within_the_value_of_another_hides_it() -> None:
    """As in the query of a URL that has lost its beginning."""
    assert HIDDEN not in redact(f"a=password={HIDDEN}")
    assert HIDDEN not in redact(f"url=/x/?y=1?sig={HIDDEN}")


def test_secret_shows_itself_only_when_asked() -> None:
    """Neither formatting nor a traceback of locals tells it."""
    secret = Secret(HIDDEN)

    assert HIDDEN not in f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() == HIDDEN
    assert secret
    assert not NO_SECRET


@pytest.mark.parametrize("show", [redact, redact_url])
def test_shown_text_commands_no_terminal(show: Callable[[str], str]) -> None:
    """A server's words and URLs are read on root's terminal."""
    shown = show("https://host/a\x1b]0;pwned\x07\x9b2J")

    assert shown.isprintable()
    assert shown.startswith("https://host/a")
