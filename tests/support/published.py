"""What is published for the tests of a session, and the servers that it is fetched from.

A plugin of pytest: the servers are shared by all tests that ask for them.
"""

__all__ = ["Published"]

import random
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.support.datastores import Datastore, azurite, gcs_emulator, moto, nginx, openssh
from tests.support.fetching import MIB
from tests.support.images import (
    BuiltImage,
    attestation,
    build_image,
    build_index,
    layered_image,
)
from tests.support.layers import BuiltLayer, build_layer, file
from tests.support.registry import Registry, TokenServer, running_registry


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A private certificate authority."""
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's TLS, signed by the private authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@dataclass(frozen=True)
class Published:
    """What is in the registries of the session.

    Args:
        index: ``team/app:1``, for amd64, arm64 and arm/v7, with an attestation.
        large: ``team/large:1``, with a layer of some MiB that does not compress.
        signature: ``team/app:sha256-<hex>.sig``, as cosign names what belongs to the index.
        root: Directory of the content.
    """

    index: BuiltImage
    large: BuiltImage
    signature: BuiltImage
    root: Path

    @property
    def layer(self) -> BuiltLayer:
        """The large layer."""
        return self.large.layers[0]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Images in the directory that all registries of the session serve."""
    directory = tmp_path_factory.mktemp("published")
    platforms = ("linux/amd64", "linux/arm64", "linux/arm/v7")
    images = [layered_image(1, platform=each, seed=each) for each in platforms]
    index = build_index([*images, attestation(images[0])])
    body = random.Random(1).randbytes(5 * MIB)
    large = build_image([build_layer([file("data", body)])], docker=True)
    signature = layered_image(1, seed="signature")
    with running_registry(directory, root=directory / "content") as registry:
        tags = {
            "team/app:1": index,
            "team/large:1": large,
            f"team/app:{index.digest.replace(':', '-')}.sig": signature,
        }
        for number, (name, image) in enumerate(tags.items()):
            layout = image.write_oci_layout(directory / str(number), annotations={})
            registry.push(layout, name)
    return Published(index, large, signature, directory / "content")


@pytest.fixture(scope="session")
def open_registry_server(
    tmp_path_factory: pytest.TempPathFactory, published: Published
) -> Iterator[Registry]:
    """Plain http, no questions asked."""
    directory = tmp_path_factory.mktemp("open")
    with running_registry(directory, root=published.root) as registry:
        yield registry


@pytest.fixture(scope="session")
def private_registry(
    tmp_path_factory: pytest.TempPathFactory, published: Published, authority: trustme.CA
) -> Iterator[Registry]:
    """TLS of a private authority, and a password."""
    directory = tmp_path_factory.mktemp("private")
    with running_registry(
        directory, root=published.root, authority=authority, password=True
    ) as registry:
        yield registry


@pytest.fixture(scope="session")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    """Gives tokens to those with a password, or with a refresh token."""
    with TokenServer(tmp_path_factory.mktemp("tokens")) as tokens:
        yield tokens


@pytest.fixture(scope="session")
def token_registry(
    tmp_path_factory: pytest.TempPathFactory, published: Published, token_server: TokenServer
) -> Iterator[Registry]:
    """Wants a token for each repository."""
    directory = tmp_path_factory.mktemp("token")
    with running_registry(directory, root=published.root, tokens=token_server) as registry:
        yield registry


@pytest.fixture(scope="session")
def https_store(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[Datastore]:
    """A web server with TLS of the private authority and a password."""
    with nginx(tmp_path_factory.mktemp("nginx"), authority) as datastore:
        yield datastore


@pytest.fixture(scope="session")
def s3_store(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[Datastore]:
    """An S3 server."""
    with moto(tmp_path_factory.mktemp("moto"), authority) as datastore:
        yield datastore


@pytest.fixture(scope="session")
def azure_store(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[Datastore]:
    """An Azure blob server."""
    with azurite(tmp_path_factory.mktemp("azurite"), authority) as datastore:
        yield datastore


@pytest.fixture(scope="session")
def gcs_store(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[Datastore]:
    """A server with Google's interface."""
    with gcs_emulator(tmp_path_factory.mktemp("gcs_emulator"), authority) as datastore:
        yield datastore


@pytest.fixture(scope="session")
def sftp_store(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[Datastore]:
    """An SSH server."""
    with openssh(tmp_path_factory.mktemp("openssh"), authority) as datastore:
        yield datastore
