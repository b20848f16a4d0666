"""Nothing that opens a door is shown: the one place that takes secrets out of texts.

Every URL and every text of a foreign library passes here on its way into a log or an error.
"""

__all__ = ["redact", "redact_url"]

import re
from urllib.parse import urlsplit, urlunsplit

from cas.model.printable import printable

_HIDDEN = "***"
_MAX_TEXT = 2000
# Texts of strangers: a pattern looks at each character a few times and no more. A word is looked at
# from its first letter only, and what was taken is not given back.
_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s'\"<>]+")
_QUERY = re.compile(r"\?[^\s'\"<>?=]*=[^\s'\"<>)]*")
_AUTHORIZATION = re.compile(r"\b(basic|bearer|digest|negotiate)\s+[\w+/=._~-]{4,}", re.IGNORECASE)
_PAIR = re.compile(
    r"(?<![\w-])(?P<name>"
    r"(?=[\w-]*?(?:password|passwd|secret|token|signature|authorization|credential|api-?key))"
    r"[\w-]++['\"]?\s*[:=]\s*['\"]?)(?!basic\b|bearer\b)[^\s'\",;&)}]+",
    re.IGNORECASE,
)


def redact_url(url: str) -> str:
    """Give a URL without user, password, query and fragment, which may hold signatures.

    What is not printable in it is replaced.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return _HIDDEN
    host = parts.netloc.rpartition("@")[2]
    query = _HIDDEN if parts.query else ""
    return printable(urlunsplit((parts.scheme, host, parts.path, query, ""))[:_MAX_TEXT])


def redact(text: str) -> str:
    """Give a text without what may be a secret in it, at most 2000 characters and one line.

    URLs lose user and query, also where a query stands without one; values that follow a
    word such as ``password`` or ``token`` and the credentials of an ``Authorization`` header are
    hidden. What is not printable is replaced. What remains is for people: it is not reversible and
    not meant to be parsed.
    """
    text = printable(" ".join(text[: 4 * _MAX_TEXT].split()))
    text = _URL.sub(lambda match: redact_url(match[0]), text)
    text = _QUERY.sub(f"?{_HIDDEN}", text)
    text = _AUTHORIZATION.sub(rf"\1 {_HIDDEN}", text)
    text = _PAIR.sub(rf"\g<name>{_HIDDEN}", text)
    return text[:_MAX_TEXT]
