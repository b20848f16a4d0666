"""Datastores that nobody here wrote, each with the object ``BODY`` under ``team/blob one``.

A :class:`Datastore` says how to open it and how to replace the object in it.
"""

__all__ = ["NAME", "Datastore", "azurite", "gcs_emulator", "moto", "nginx", "openssh"]

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
import urllib3
from azure.storage.blob import BlobClient, ContainerClient
from botocore.session import Session

from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, SourceSettings, TransportSettings
from tests.support.fetching import BODY
from tests.support.server_process import free_port, serving

NAME = "team/blob one"
_ROOT = Path(__file__).parents[2]
_AZURE_KEY = (  # the one that every Azurite has
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@dataclass
class Datastore:
    """A running datastore.

    Args:
        settings: For reading it.
        path: Of the object, as the settings' kind names it.
        replace: Puts other bytes in its place.
        refused: Settings with credentials that it does not accept; None if it accepts all.
    """

    settings: SourceSettings
    path: str
    replace: Callable[[bytes], None]
    refused: SourceSettings | None


@contextmanager
def nginx(directory: Path, authority: trustme.CA) -> Iterator[Datastore]:
    """A web server with a certificate of a private authority and a password."""
    port = free_port()
    files = directory / "files"
    (files / "team").mkdir(parents=True)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    (directory / "users").write_text("alice:{PLAIN}secret\n")
    (directory / "nginx.conf").write_text(f"""
        daemon off; error_log stderr; pid {directory}/pid; user root;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            server {{
                listen 127.0.0.1:{port} ssl;
                ssl_certificate {directory}/certificate.pem;
                ssl_certificate_key {directory}/key.pem;
                root {files};
                auth_basic tests; auth_basic_user_file {directory}/users;
            }}
        }}""")
    blob = files / NAME

    def replace(data: bytes) -> None:
        blob.unlink(missing_ok=True)
        blob.write_bytes(data)

    replace(BODY)
    transport = TransportSettings(ca_pem=authority.cert_pem.bytes().decode())
    settings = SourceSettings(
        url=f"https://127.0.0.1:{port}/team",
        transport=transport,
        credentials=Credentials(username="alice", password=Secret("secret")),
    )
    refused = SourceSettings(url=settings.url, transport=transport)
    with serving(["nginx", "-c", str(directory / "nginx.conf")], port, directory / "log"):
        yield Datastore(settings, "blob%20one", replace, refused)


@contextmanager
def moto(directory: Path, _: trustme.CA) -> Iterator[Datastore]:
    """An S3 server; it accepts everybody."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("moto_server"))
    with serving([program, "-H", "127.0.0.1", "-p", str(port)], port, directory / "log"):
        client: Any = Session().create_client(
            "s3",
            "eu-central-1",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        client.create_bucket(
            Bucket="tests", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )

        def replace(data: bytes) -> None:
            client.put_object(Bucket="tests", Key=NAME, Body=data)

        replace(BODY)
        settings = SourceSettings(
            url="s3://tests/team",
            endpoint=endpoint,
            region="eu-central-1",
            credentials=Credentials(username="key", password=Secret("secret")),
        )
        yield Datastore(settings, "blob one", replace, None)
        client.close()


@contextmanager
def azurite(directory: Path, _: trustme.CA) -> Iterator[Datastore]:
    """An Azure blob server."""
    port = free_port()
    program = _ROOT / ".cache/npm/node_modules/.bin/azurite-blob"
    options = ["--blobHost", "127.0.0.1", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    command = [str(program), "--blobPort", str(port), "--location", str(directory), *options]
    account = "devstoreaccount1"
    endpoint = f"http://127.0.0.1:{port}/{account}"
    with serving(command, port, directory / "log"):
        container = ContainerClient(endpoint, "tests", credential=_AZURE_KEY)
        with container:
            container.create_container()
        blob = BlobClient(endpoint, "tests", NAME, credential=_AZURE_KEY)

        def replace(data: bytes) -> None:
            blob.upload_blob(data, overwrite=True)

        replace(BODY)
        settings = SourceSettings(
            url=f"azure://{account}/tests/team",
            endpoint=endpoint,
            credentials=Credentials(password=Secret(_AZURE_KEY)),
        )
        wrong = Credentials(password=Secret("d3Jvbmc="))
        refused = SourceSettings(url=settings.url, endpoint=endpoint, credentials=wrong)
        yield Datastore(settings, "blob one", replace, refused)
        blob.close()


@contextmanager
def gcs_emulator(directory: Path, _: trustme.CA) -> Iterator[Datastore]:
    """A server with Google's interface; it accepts everybody."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    program = str(Path(sys.executable).with_name("gcp-storage-emulator"))
    command = [program, "start", "--host", "127.0.0.1", "--port", str(port), "--in-memory",
               "--default-bucket", "tests"]  # fmt: skip
    with serving(command, port, directory / "log"), urllib3.PoolManager() as http:

        def replace(data: bytes) -> None:
            answer = http.request(
                "POST",
                f"{endpoint}/upload/storage/v1/b/tests/o?uploadType=media&name=team%2Fblob%20one",
                body=data,
                headers={"Content-Type": "application/octet-stream"},
            )
            assert answer.status == 200, answer.data

        replace(BODY)
        settings = SourceSettings(url="gs://tests/team", endpoint=endpoint)
        yield Datastore(settings, "blob one", replace, None)


@contextmanager
def openssh(directory: Path, _: trustme.CA) -> Iterator[Datastore]:
    """An SFTP server that knows one key."""
    port = free_port()
    files = directory / "files"
    (files / "team").mkdir(parents=True)
    for name in ("host", "user", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True
        )
    (directory / "config").write_text(f"""
        Port {port}
        ListenAddress 127.0.0.1
        HostKey {directory}/host
        PidFile {directory}/pid
        AuthorizedKeysFile {directory}/user.pub
        StrictModes no
        UsePAM no
        PermitRootLogin yes
        PasswordAuthentication no
        Subsystem sftp internal-sftp
        ForceCommand internal-sftp -d {files}
    """)
    blob = files / NAME
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it

    def replace(data: bytes) -> None:
        blob.write_bytes(data)

    replace(BODY)
    host_key = (directory / "host.pub").read_text().split()[:2]

    def settings(key: str) -> SourceSettings:
        return SourceSettings(
            url=f"sftp://root@127.0.0.1:{port}{files}/team",
            credentials=Credentials(private_key=Secret((directory / key).read_text())),
            host_keys=" ".join([f"[127.0.0.1]:{port}", *host_key]),
        )

    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(directory / "config")]
    with serving(command, port, directory / "log"):
        yield Datastore(settings("user"), "blob one", replace, settings("stranger"))
