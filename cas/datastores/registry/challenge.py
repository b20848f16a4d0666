"""What a registry wants to see before it answers: the ``WWW-Authenticate`` header."""

__all__ = ["Challenge", "parse_challenges"]

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for a word
_PART = re.compile(
    rf"[\s,]*+(?:(?P<name>{_TOKEN})\s*+=\s*+(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^\s,]+))"
    rf"|(?P<scheme>{_TOKEN})(?=\s|,|$))"
)
_ESCAPED = re.compile(r"\\(.)")
_MAX_CHARACTERS = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate: scheme in lower case, parameters by name in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Parse header values, each with one challenge or several; what does not parse is left out.

    Source: RFC 9110, section 11.6.1.
    """
    return [challenge for value in values for challenge in _parse(value[:_MAX_CHARACTERS])]


def _parse(value: str) -> Iterator[Challenge]:
    scheme, parameters = "", dict[str, str]()
    position = 0
    while match := _PART.match(value, position):
        position = match.end()
        if match["scheme"]:
            if scheme:
                yield Challenge(scheme, parameters)
            scheme, parameters = match["scheme"].lower(), {}
        else:
            text = match["bare"] or _ESCAPED.sub(r"\1", match["quoted"] or "")
            parameters[match["name"].lower()] = text
    if scheme:
        yield Challenge(scheme, parameters)
