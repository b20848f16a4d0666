"""A registry with its mirrors: what tags point to, verified documents, blobs to be fetched.

A mirror that does not have something, or fails, is passed over; the registry itself comes last.
Documents are compared with their digest whoever delivers them, so that a mirror that lies is
passed over as well. Blobs are for :func:`cas.datastores.fetch.fetch`, which reads them unverified.
"""

__all__ = ["OCIRegistry"]

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import chain
from typing import Self, TypeVar
from urllib.parse import urlsplit

from cas.datastores.port import Download, RemoteObject, Validator
from cas.datastores.registry import documents
from cas.datastores.registry.host import Host, HostSettings
from cas.datastores.retry import Pace, RetryPolicy, retrying
from cas.datastores.settings import SourceSettings
from cas.errors import (
    CasError,
    ConfigError,
    InterruptedOperationError,
    InvalidNameError,
    LimitExceededError,
    PlatformNotFoundError,
    SourceChangedError,
    SourceNotFoundError,
)
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.documents import Index, parse_document
from cas.model.limits import Limits
from cas.model.media_types import OCI_INDEX, is_index, is_manifest
from cas.model.platforms import order_by_preference
from cas.model.reference import ImageReference

_log = logging.getLogger(__name__)

_DIGEST = "digest"
_MOST_REFERRERS = 1000
_LONGEST_LIST = 1000
"""Characters of what an index has to offer."""
_DOCKER_HUB = ("docker.io", "registry-1.docker.io")

_Result = TypeVar("_Result")


class OCIRegistry:
    """A registry; see :class:`cas.datastores.port.Registry`.

    Args:
        settings: URL ``docker://<registry>`` or ``oci://<registry>``.
        retry: Attempts of every call but :meth:`open`, whose caller tries again.
        limits: For documents.
        pace: Time.
    """

    def __init__(
        self,
        settings: SourceSettings,
        *,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._domain = urlsplit(settings.url).netloc.rpartition("@")[2]
        if not self._domain:
            raise ConfigError("the URL of a registry has no host; write docker://host[:port]")
        self._hosts = [Host(each) for each in _host_settings(settings, self._domain)]
        self._retry = retry or RetryPolicy()
        self._limits = limits or Limits()
        self._pace = pace or Pace()

    @property
    def name(self) -> str:
        """The registry as a URL, mirrors or not."""
        return f"docker://{self._domain}"

    def resolve(
        self, reference: ImageReference, /, *, platform: Platform | None = None
    ) -> Descriptor:
        """Say what a reference points to; see :class:`cas.datastores.port.Registry`."""
        named = reference.digest or reference.tag
        found = self._ask(
            lambda host: documents.describe(
                host, reference.path, named, self._limits.document_bytes
            ),
            resolving=True,
        )
        for _ in range(self._limits.index_depth):
            if platform is None or is_manifest(found.media_type):
                return found
            found = self._choose(reference, found, platform)
        raise LimitExceededError(
            f"{reference}: indexes are nested deeper than {self._limits.index_depth} levels",
            limit=self._limits.index_depth,
        )

    def _choose(
        self, reference: ImageReference, descriptor: Descriptor, platform: Platform
    ) -> Descriptor:
        raw = self.manifest(reference.path, descriptor.digest, limit=self._limits.document_bytes)
        index = parse_document(raw, descriptor, self._limits)
        entries = index.manifests if isinstance(index, Index) else ()
        fitting = order_by_preference(entries, platform)
        if fitting:
            return fitting[0]
        platforms = sorted({str(entry.platform) for entry in entries if entry.platform})
        offered = ", ".join(platforms)[:_LONGEST_LIST]
        raise PlatformNotFoundError(
            f"{reference} has nothing for {platform}; it has {offered or 'no platforms'}",
            image=reference,
            platform=platform,
        )

    def manifest(self, repository: str, digest: Digest, /, *, limit: int) -> bytes:
        """Give a manifest or index whose bytes were compared with the digest."""
        return self._ask(lambda host: documents.read_manifest(host, repository, digest, limit))

    def blob(self, repository: str, descriptor: Descriptor, /, *, limit: int) -> bytes:
        """Give a small blob whose bytes were compared with the descriptor."""
        return self._ask(lambda host: documents.read_blob(host, repository, descriptor, limit))

    def find_tag(self, repository: str, tag: str, /) -> Descriptor | None:
        """Say what a tag points to; None if there is none."""
        try:
            return self.resolve(ImageReference(self._domain, repository, tag))
        except SourceNotFoundError:
            return None

    def referrers(
        self, repository: str, digest: Digest, /, *, artifact_type: str = ""
    ) -> tuple[Descriptor, ...]:
        """List a thousand manifests that name ``digest`` as their subject, of the type first."""
        limit = self._limits.document_bytes
        pages = self._ask(lambda host: documents.read_referrers(host, repository, digest, limit))
        if pages is None:
            found = self.find_tag(repository, str(digest).replace(":", "-"))
            if found is None or not is_index(found.media_type):
                return ()
            pages = [self.manifest(repository, found.digest, limit=limit)]
        listed = chain.from_iterable(map(self._listed, pages))
        manifests = (each for each in listed if is_manifest(each.media_type))
        ordered = sorted(manifests, key=lambda each: each.artifact_type != artifact_type)
        return tuple(ordered[:_MOST_REFERRERS])

    def _listed(self, raw: bytes) -> tuple[Descriptor, ...]:
        described_by = Descriptor(OCI_INDEX, Digest.of(raw), len(raw))
        index = parse_document(raw, described_by, self._limits)
        return index.manifests if isinstance(index, Index) else ()

    def blob_path(self, repository: str, digest: Digest, /) -> str:
        """Give the path under which :meth:`open` delivers a blob."""
        return f"{repository}@{digest}"

    def stat(self, path: str, /) -> RemoteObject:
        """Ask about a blob without reading it."""
        repository, digest = _parse_path(path)
        remote = self._ask(lambda host: host.stat_blob(repository, digest))
        return replace(remote, validator=Validator(_DIGEST, str(digest)))

    @contextmanager
    def open(
        self, path: str, /, *, offset: int = 0, validator: Validator | None = None
    ) -> Iterator[Download]:
        """Read a blob from ``offset`` on; see :class:`cas.datastores.port.Source`."""
        repository, digest = _parse_path(path)
        proof = Validator(_DIGEST, str(digest))
        if offset and validator != proof:
            raise SourceChangedError(
                f"{path}: the transfer that is gone on with is of another blob"
            )
        with ExitStack() as stack:

            def begin(host: Host) -> tuple[Host, Download]:
                opened = host.open_blob(repository, digest, offset, proof)
                return host, stack.enter_context(opened)

            host, download = self._first(begin, digest=digest)
            remote = replace(download.remote, validator=proof)
            chunks = _watched(host, digest, download.chunks)
            yield replace(download, remote=remote, chunks=chunks)

    def _ask(self, ask: Callable[[Host], _Result], *, resolving: bool = False) -> _Result:
        loop = retrying(self._retry, self._pace)
        return loop(lambda: self._first(ask, resolving=resolving))

    def _first(
        self,
        ask: Callable[[Host], _Result],
        *,
        resolving: bool = False,
        digest: Digest | None = None,
    ) -> _Result:
        """Ask the hosts in order until one has an answer; the last one's failure counts.

        Hosts that broke off are asked later, and last those whose blob was not what it should be.
        """
        passed: list[str] = []
        hosts = [each for each in self._hosts if _may(each, resolving=resolving)]
        for host in sorted(hosts, key=lambda each: (digest in each.delivered, each.failures)):
            try:
                return ask(host)
            except InterruptedOperationError:
                raise
            except CasError as error:
                passed.append(f"{host.name}: {error.message}")
                if len(passed) < len(hosts):
                    _log.info("registry mirror passed over host=%s error=%s", host.name, error)
                    continue
                for note in passed[:-1]:
                    error.add_note(f"asked before: {note}")
                raise
        raise ConfigError(
            f"no host of {self.name} may be asked for this; see its mirrors' settings"
        )

    def close(self) -> None:
        """Give connections back. Idempotent."""
        for host in self._hosts:
            host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _host_settings(settings: SourceSettings, domain: str) -> list[HostSettings]:
    mirrors = [
        HostSettings(
            url=mirror.url if mirror.override_path else f"{mirror.url.rstrip('/')}/v2",
            namespace=domain,
            resolves=mirror.resolves,
            pulls=mirror.pulls,
            credentials=mirror.credentials,
            transport=mirror.transport,
        )
        for mirror in settings.mirrors
    ]
    scheme = "http" if settings.plain_http else "https"
    host = dict([_DOCKER_HUB]).get(domain, domain)
    server = settings.endpoint or f"{scheme}://{host}"
    itself = HostSettings(
        url=f"{server.rstrip('/')}/v2",
        namespace="",
        resolves=True,
        pulls=True,
        credentials=settings.credentials,
        transport=settings.transport,
    )
    return [*mirrors, itself]


def _may(host: Host, *, resolving: bool) -> bool:
    return host.settings.resolves if resolving else host.settings.pulls


def _parse_path(path: str) -> tuple[str, Digest]:
    repository, separator, text = path.rpartition("@")
    if not separator or not repository:
        raise InvalidNameError(f"{path[:200]!r} is not of the form repository@digest", value=path)
    return repository, Digest.parse(text)


def _watched(host: Host, digest: Digest, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Remember how a blob ended, for the order in which hosts are asked from then on."""
    try:
        yield from chunks
    except CasError:
        host.failures += 1
        raise
    host.delivered.add(digest)
