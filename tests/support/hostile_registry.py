"""Images on the server that does what it is told: a registry whose blobs can go wrong."""

__all__ = ["HostileRegistry"]

import json
from collections.abc import Iterable

from tests.support.hostile_server import Behaviour, HostileServer, resource
from tests.support.images import BuiltImage, digest_of


class HostileRegistry(HostileServer):
    """A registry without authentication that delivers what it was given, until told otherwise."""

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def publish(self, image: BuiltImage, repository: str = "app", tag: str = "v1") -> str:
        """Have an image; gives its reference."""
        for digest, data in image.blobs.items():
            media_type = _media_type(data)
            if media_type is None:
                self.on(self.blob(digest, repository), resource(data, etag=None))
            else:
                self.manifest(digest, data, media_type, repository)
        self.manifest(tag, image.manifest, str(image.root["mediaType"]), repository)
        return f"{self.address}/{repository}:{tag}"

    def manifest(self, named: str, data: bytes, media_type: str, repository: str = "app") -> None:
        """Have a manifest under a tag or digest."""
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)}
        path = f"/v2/{repository}/manifests/{named}"
        self.on(path, resource(data, etag=None, headers=headers))

    def blob(self, digest: str, repository: str = "app") -> str:
        """Path of a blob."""
        return f"/v2/{repository}/blobs/{digest}"

    def behave(self, digest: str, *behaviours: Behaviour, repository: str = "app") -> str:
        """Let a blob go wrong; gives its path."""
        path = self.blob(digest, repository)
        self.on(path, *behaviours)
        return path

    def blob_requests(self, digests: Iterable[str], repository: str = "app") -> int:
        """How often blobs were asked for."""
        return sum(len(self.asked(self.blob(digest, repository))) for digest in digests)


def _media_type(data: bytes) -> str | None:
    """Of a manifest or index; None of any other blob."""
    try:
        document = json.loads(data)
    except ValueError:
        return None
    if not isinstance(document, dict) or not {"manifests", "layers"} & set(document):
        return None
    return str(document["mediaType"])
