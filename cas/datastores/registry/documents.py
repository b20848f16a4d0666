"""Reading small documents from one host of a registry, verified where a digest is known."""

__all__ = ["describe", "read_blob", "read_manifest", "read_referrers"]

import re

from cas.datastores.http.answer import Answer
from cas.datastores.http.ranges import described
from cas.datastores.http.source import HEAD_REFUSED
from cas.datastores.port import Validator
from cas.datastores.registry.host import Host
from cas.errors import (
    CasError,
    DigestMismatchError,
    InvalidNameError,
    LimitExceededError,
    MalformedDocumentError,
    SizeMismatchError,
)
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.media_types import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    is_index,
    is_manifest,
)

_ACCEPT = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_INDEX}, {DOCKER_MANIFEST}"}
_ACCEPT_INDEX = {"Accept": OCI_INDEX}
_OK = 200
_MOST_PAGES = 16
_LINK_CHARACTERS = 8192
_NEXT = re.compile(
    r"<[^<>?]*(?:\?(?P<query>[^<>\s]*))?>\s*;[^,<>]*\brel\s*=\s*\"?next\b", re.ASCII | re.IGNORECASE
)
"""A link of RFC 8288 to what comes after."""
_NO_SUCH_CALL = frozenset({400, 404, 405, 501})


def describe(host: Host, repository: str, named: str, limit: int) -> Descriptor:
    """Say what a tag or digest is, without reading it where the host can.

    Raises:
        SourceNotFoundError: There is none.
        DigestMismatchError: It is not what the digest names.
        MalformedDocumentError: It is neither manifest nor index, or its digest does not parse.
        LimitExceededError: It is larger than ``limit``.
    """
    path = f"manifests/{named}"
    with host.exchange("HEAD", repository, path, _ACCEPT) as answer:
        size = described(answer).size
        if answer.status == _OK and size and "Docker-Content-Digest" in answer.headers:
            return _named(named, Descriptor(_media_type(answer), _told_digest(answer), size))
        if answer.status != _OK and answer.status not in HEAD_REFUSED:
            raise answer.refusal()
    with host.exchange("GET", repository, path, _ACCEPT) as answer:
        if answer.status != _OK:
            raise answer.refusal()
        raw = answer.body(limit)
        return _named(named, Descriptor(_media_type(answer), Digest.of(raw), len(raw)))


def _media_type(answer: Answer) -> str:
    media_type = described(answer).media_type
    if is_manifest(media_type) or is_index(media_type):
        return media_type
    raise MalformedDocumentError(
        f"{answer.what}: the registry has something of the type {media_type[:100]!r}, which is "
        "neither manifest nor index of OCI or docker schema 2",
        media_type=media_type[:100],
    )


def _told_digest(answer: Answer) -> Digest:
    try:
        return Digest.parse(answer.headers["Docker-Content-Digest"].strip())
    except InvalidNameError as error:
        raise MalformedDocumentError(f"{answer.what}: {error.message}") from error


def _named(named: str, descriptor: Descriptor) -> Descriptor:
    if ":" in named and named != str(descriptor.digest):
        raise _mismatch(f"manifest {named}", named, descriptor.digest)
    return descriptor


def _mismatch(what: str, expected: object, actual: Digest) -> DigestMismatchError:
    return DigestMismatchError(
        f"{what}: the registry delivers {actual}; get it from a registry you trust",
        expected=expected,
        actual=actual,
    )


def read_manifest(host: Host, repository: str, digest: Digest, limit: int) -> bytes:
    """Read a manifest or index and compare it with its digest.

    Raises:
        SourceNotFoundError: There is none.
        DigestMismatchError: It is another one.
        LimitExceededError: It is larger than ``limit``.
    """
    with host.exchange("GET", repository, f"manifests/{digest}", _ACCEPT) as answer:
        if answer.status != _OK:
            raise answer.refusal()
        raw = answer.body(limit)
    if Digest.of(raw) != digest:
        raise _mismatch(f"{host.name}: manifest {digest}", digest, Digest.of(raw))
    return raw


def read_blob(host: Host, repository: str, descriptor: Descriptor, limit: int) -> bytes:
    """Read a small blob and compare it with its descriptor.

    Raises:
        SourceNotFoundError: There is none.
        DigestMismatchError: It is another one.
        SizeMismatchError: It has another size.
        LimitExceededError: The descriptor's size is above ``limit``.
    """
    digest, size = descriptor.digest, descriptor.size
    if size > limit:
        raise LimitExceededError(
            f"{host.name}: blob {digest} has {size} bytes, more than the {limit} allowed",
            limit=limit,
            actual=size,
        )
    with host.open_blob(repository, digest, 0, Validator("digest", str(digest))) as download:
        parts, got = [], 0
        for chunk in download.chunks:
            parts.append(chunk)
            got += len(chunk)
            if got > size:
                break
    if got != size:
        raise SizeMismatchError(
            f"{host.name}: blob {digest} has {got} bytes or more instead of {size}",
            expected=size,
            actual=got,
        )
    raw = b"".join(parts)
    if Digest.of(raw) != digest:
        raise _mismatch(f"{host.name}: blob {digest}", digest, Digest.of(raw))
    return raw


def read_referrers(host: Host, repository: str, digest: Digest, limit: int) -> list[bytes] | None:
    """Read the indexes of what refers to a manifest; None if the host does not know the question.

    A registry may give them in pages: the first 16 are read.

    Raises:
        LimitExceededError: Together they are larger than ``limit``.
        CasError: The host fails otherwise.

    Source: OCI distribution specification, "Listing Referrers".
    """
    pages: list[bytes] = []
    query = ""
    while len(pages) < _MOST_PAGES:
        with host.exchange(
            "GET", repository, f"referrers/{digest}", _ACCEPT_INDEX, query=query
        ) as answer:
            if not pages and answer.status in _NO_SUCH_CALL:
                return None
            if answer.status != _OK or described(answer).media_type != OCI_INDEX:
                raise _unexpected(answer)
            pages.append(answer.body(limit))
            limit -= len(pages[-1])
            query = _next_page(answer)
        if not query:
            break
    return pages


def _next_page(answer: Answer) -> str:
    """The query of the next page; of the link nothing else counts, it could lead anywhere."""
    for value in answer.header_values("Link"):
        match = _NEXT.search(value[:_LINK_CHARACTERS])
        if match is not None:
            return match["query"] or ""
    return ""


def _unexpected(answer: Answer) -> CasError:
    if answer.status != _OK:
        return answer.refusal()
    return MalformedDocumentError(f"{answer.what}: the registry answers with something else")
