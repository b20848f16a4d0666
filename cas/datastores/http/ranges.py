"""Reading an object from its middle, and only if it is provably the same object.

The request names offset and validator, the answer is believed only if it proves both: servers
exist that ignore either header.

Source: RFC 9110, sections 8.8 (validators), 13.1 (preconditions) and 14 (ranges).
"""

__all__ = ["described", "resumption_headers", "verified_resumption"]

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from cas.datastores.http.answer import Answer
from cas.datastores.port import RemoteObject, Validator
from cas.errors import ResumeUnsupportedError, SourceChangedError, SourceProtocolError

_PINNED = frozenset({"digest", "generation"})
"""Kinds of validators that are part of the URL, which then cannot mean another object."""
_ETAG = "etag"
_LAST_MODIFIED = "last-modified"
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_MAX_VALIDATOR = 1024
_OK = 200
_PARTIAL = 206
_UNSATISFIABLE = 416


def described(answer: Answer) -> RemoteObject:
    """Say what an answer tells about the whole object.

    Raises:
        SourceProtocolError: Its length is no number.
    """
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return RemoteObject(_length(answer), _validator(answer.headers), media_type)


def _length(answer: Answer) -> int | None:
    text = answer.headers.get("Content-Length")
    if text is None:
        return None
    if _LENGTH.fullmatch(text.strip()) is None:
        raise SourceProtocolError(f"{answer.what}: the announced length {text[:40]!r} is no number")
    return int(text)


def _validator(headers: Mapping[str, str]) -> Validator | None:
    etag = headers.get("ETag", "").strip()
    if _STRONG_ETAG.fullmatch(etag) and len(etag) <= _MAX_VALIDATOR:
        return Validator(_ETAG, etag)
    modified = headers.get("Last-Modified", "").strip()
    if _is_strong_date(modified, headers.get("Date", "")):
        return Validator(_LAST_MODIFIED, modified)
    return None


def _is_strong_date(modified: str, now: str) -> bool:
    """Whether a date tells two states apart: not within the second in which it was sent."""
    try:
        age = parsedate_to_datetime(now) - parsedate_to_datetime(modified)
    except (TypeError, ValueError, OverflowError):
        return False
    return age.total_seconds() >= 1 and len(modified) <= _MAX_VALIDATOR


def resumption_headers(offset: int, validator: Validator | None) -> dict[str, str]:
    """Ask for the bytes from ``offset`` on of exactly the object that the validator is of.

    An object whose URL names its state needs no condition.

    Raises:
        ResumeUnsupportedError: The validator is not one of HTTP.
    """
    if offset == 0:
        return {}
    if validator is not None and validator.kind in _PINNED:
        return {"Range": f"bytes={offset}-"}
    condition = {_ETAG: "If-Match", _LAST_MODIFIED: "If-Unmodified-Since"}
    if validator is None or validator.kind not in condition:
        raise ResumeUnsupportedError("the object has no validator that HTTP knows; begin anew")
    return {"Range": f"bytes={offset}-", condition[validator.kind]: validator.value}


def verified_resumption(answer: Answer, offset: int, validator: Validator) -> RemoteObject:
    """Say what is delivered, once the answer proves that it goes on where it should.

    Raises:
        SourceChangedError: It is another object.
        ResumeUnsupportedError: It begins at the first byte, or does not prove what it is.
        SourceProtocolError: It is a part that nobody asked for.
    """
    if answer.status == _UNSATISFIABLE:
        raise SourceChangedError(f"{answer.what}: the object has no more than {offset} bytes now")
    if answer.status not in (_OK, _PARTIAL):
        raise answer.refusal()
    actual = _proof(validator, answer.headers)
    if actual is not None and actual != validator.value:
        raise SourceChangedError(
            f"{answer.what}: the object was replaced while it was read",
            expected=validator.value,
            actual=actual,
        )
    if answer.status == _OK or actual is None:
        raise ResumeUnsupportedError(
            f"{answer.what}: the server does not provably go on at byte {offset}; begin anew"
        )
    return RemoteObject(_total(answer, offset), validator, described(answer).media_type)


def _proof(validator: Validator, headers: Mapping[str, str]) -> str | None:
    """What an answer says about the state of its object, in the terms of the validator."""
    if validator.kind in _PINNED:
        return validator.value
    value = headers.get("ETag" if validator.kind == _ETAG else "Last-Modified")
    return None if value is None else value.strip()


def _total(answer: Answer, offset: int) -> int | None:
    """Size of the whole object from ``Content-Range``, which must be the rest of it."""
    text = answer.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match[1]) != offset:
        raise SourceProtocolError(
            f"{answer.what}: the server sends the part {text[:60]!r} when asked for the bytes from "
            f"{offset} on"
        )
    if match[3] == "*":
        return None
    total, last = int(match[3]), int(match[2])
    length = _length(answer)
    if last + 1 != total or (length is not None and length != total - offset):
        raise SourceProtocolError(
            f"{answer.what}: the server sends the part {text[:60]!r} of {length} bytes, which is "
            "not the rest of the object"
        )
    return total
