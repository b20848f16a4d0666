"""The downloader's process."""

__all__ = ["main"]

import encodings.idna  # noqa: F401 - looked up by name when a host is, and out of reach then
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, assert_never, cast

import msgspec

import cas.datastores.registry.registry  # noqa: F401 - most ask for one; loaded while nobody waits
from cas.agent.serving import CallContext, Confinable, serve
from cas.datastores.fetch import FETCHED_MODE, fetch
from cas.datastores.opening import open_source
from cas.datastores.port import Registry, Source
from cas.datastores.retry import Pace, retrying
from cas.datastores.settings import decode_settings
from cas.datastores.terms import FetchPolicy, Terms, Wanted
from cas.downloader.reach import readable_paths
from cas.downloader.requests import (
    Content,
    DescriptorForm,
    Descriptors,
    Fetch,
    Fetched,
    FindTag,
    Options,
    Read,
    Referrers,
    Request,
    Resolve,
    Stat,
    Status,
)
from cas.errors import InvalidNameError, LimitExceededError
from cas.fsops.durable import write_file
from cas.model.cancellation import begin_operation
from cas.model.digest import Digest
from cas.model.reference import ImageReference
from cas.model.transfer_name import TransferName

_HERE = Path()
_NOTE_BYTES = 64 * 1024
"""More than what is noted of a transfer has, should a blob be allowed less."""
_REQUESTS: "msgspec.json.Decoder[Request]" = msgspec.json.Decoder(Request)


def main() -> NoReturn:
    """Be the downloader until the pipe on standard input ends."""
    serve(_prepare)


def _prepare(raw: bytes) -> Confinable:
    options = msgspec.json.decode(raw, type=Options)
    settings = decode_settings(bytes(options.source))
    source = open_source(settings, retry=options.policy.retry)
    session = _Session(source, options.policy)
    return Confinable(
        session.handle,
        readable=readable_paths(settings.url),
        network=True,
        file_bytes=options.file_bytes + _NOTE_BYTES,
    )


class _Session:
    """One datastore, asked again and again."""

    def __init__(self, source: Source, policy: FetchPolicy) -> None:
        self._source = source
        self._policy = policy

    def handle(self, request: bytes, context: CallContext) -> msgspec.Struct:
        """Do what is asked; see :data:`cas.agent.serving.Handler`."""
        begin_operation(context.cancel)
        try:
            asked = _REQUESTS.decode(request)
        except msgspec.DecodeError as error:
            message = f"the downloader is asked what it does not know: {error}"
            raise InvalidNameError(message) from error
        match asked:
            case Fetch():
                return self._fetch(asked, context)
            case Stat(path=path):
                return self._stat(path)
            case Read():
                again = retrying(self._policy.retry, Pace())
                return Content(again(self._read, asked, context))
            case Resolve(reference=reference):
                return DescriptorForm.of(self._registry.resolve(ImageReference.parse(reference)))
            case FindTag(repository=repository, tag=tag):
                found = self._registry.find_tag(repository, tag)
                return Descriptors([] if found is None else [DescriptorForm.of(found)])
            case Referrers(repository=repository, digest=digest, artifact_type=kind):
                listed = self._registry.referrers(
                    repository, Digest.parse(digest), artifact_type=kind
                )
                return Descriptors([DescriptorForm.of(each) for each in listed])
            case _:
                assert_never(asked)

    def _stat(self, path: str) -> Status:
        policy = self._policy.retry
        if hasattr(self._source, "resolve"):  # a registry tries again by itself
            policy = replace(policy, attempts=1)
        remote = retrying(policy, Pace())(self._source.stat, path)
        return Status(remote.size, remote.media_type)

    def _read(self, asked: Read, context: CallContext) -> bytes:
        data = b""
        with (
            self._source.open(asked.path) as download,
            context.cancel.notifying(download.abort),
        ):
            for chunk in download.chunks:
                context.cancel.check()
                data += chunk
                if len(data) > asked.max_bytes:
                    raise LimitExceededError(
                        f"{self._source.name}: {asked.path} has more than the {asked.max_bytes} "
                        "bytes that it may have",
                        limit=asked.max_bytes,
                    )
        return data

    @property
    def _registry(self) -> Registry:
        if not hasattr(self._source, "resolve"):
            raise InvalidNameError(f"{self._source.name} is no registry of images")
        return cast("Registry", self._source)

    def _fetch(self, asked: Fetch, context: CallContext) -> Fetched:
        name = TransferName.parse(asked.name)
        path = asked.path
        if asked.document:
            return self._fetch_document(asked, name, context)
        if hasattr(self._source, "blob_path"):
            path = self._registry.blob_path(path, name.digest)
        wanted = Wanted(path=path, digest=name.digest, size=asked.size, max_bytes=asked.max_bytes)
        terms = Terms(
            policy=self._policy, progress=_CallProgress(context), cancellation=context.cancel
        )
        done = fetch(self._source, wanted, _HERE / str(name), terms)
        return Fetched(done.size, done.received)

    def _fetch_document(self, asked: Fetch, name: TransferName, context: CallContext) -> Fetched:
        raw = self._registry.manifest(asked.path, name.digest, limit=asked.max_bytes)
        write_file(_HERE / str(name), raw, mode=FETCHED_MODE)
        context.progress(len(raw), len(raw))
        return Fetched(len(raw), len(raw))


class _CallProgress:
    """Tells the steps of a transfer as bytes in all."""

    def __init__(self, context: CallContext) -> None:
        self._context = context
        self._total: int | None = None
        self._done = 0

    def start(
        self,
        action: str,  # noqa: ARG002 - the protocol's, as below
        item: str,  # noqa: ARG002
        total: int | None,
        unit: str = "B",  # noqa: ARG002
    ) -> None:
        self._total, self._done = total, 0

    def advance(self, action: str, item: str, amount: int) -> None:  # noqa: ARG002
        self._done += amount
        self._context.progress(self._done, self._total)

    def finish(self, action: str, item: str) -> None:
        pass
