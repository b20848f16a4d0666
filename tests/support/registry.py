"""Registries that nobody here wrote: Debian's docker-registry, filled by skopeo.

Plain or with TLS, open, with a password, or with tokens from a token server of the test's own.
"""

__all__ = ["PASSWORD", "USER", "Registry", "TokenServer", "running_registry"]

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import bcrypt
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509 import load_pem_x509_certificate

from tests.support.hostile_server import HostileServer, Line, Request, answer
from tests.support.server_process import free_port, serving
from tests.support.waiting import wait_for

USER = "alice"
PASSWORD = "correct horse"


@dataclass
class Registry:
    """A running registry.

    Args:
        address: Host and port.
        ca_pem: Of its certificate; empty without TLS.
        certificates: Directory for skopeo with the CA in it.
        log: Its access log.
    """

    address: str
    ca_pem: str
    certificates: Path
    log: Path

    def push(self, layout: Path, name: str, *options: str) -> None:
        """Copy an OCI layout (or archive, by its suffix) in, all its platforms."""
        kind = "oci" if layout.is_dir() else "oci-archive"
        verify = (
            ["--dest-cert-dir", str(self.certificates)]
            if self.ca_pem
            else ["--dest-tls-verify=false"]
        )
        subprocess.run(
            ["skopeo", "copy", "--all", "--quiet", "--dest-creds", f"{USER}:{PASSWORD}", *verify,
             *options, f"{kind}:{layout}", f"docker://{self.address}/{name}"],
            check=True, capture_output=True,
        )  # fmt: skip

    def answers(self, part: str, count: int) -> list[tuple[int, int]]:
        """Status and body bytes of every answer to a GET whose path has ``part`` in it, in order.

        Waits for ``count`` of them: an answer is logged when its last byte is on its way.
        """
        wait_for(lambda: len(self._answers(part)) >= count)
        return self._answers(part)

    def _answers(self, part: str) -> list[tuple[int, int]]:
        entries = [line for line in self.log.read_text().splitlines() if '"GET ' in line]
        fields = [line.partition('HTTP/1.1" ')[2].split() for line in entries if part in line]
        return [(int(status), int(sent)) for status, sent, *_ in fields]


class TokenServer(HostileServer):
    """Gives tokens for a registry, as auth.docker.io does.

    Args:
        registry: Name under which the registry knows itself.
        open_to_all: Tokens for reading are given without a password.
    """

    def __init__(self, directory: Path, *, open_to_all: bool = False) -> None:
        super().__init__()
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        certificate = authority.issue_cert("token.example", key_type=trustme.KeyType.ECDSA)
        self.bundle = directory / "tokens.pem"
        certificate.cert_chain_pems[0].write_to_path(self.bundle)
        self._key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
        pem = load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())
        self._x5c = base64.b64encode(pem.public_bytes(serialization.Encoding.DER)).decode()
        self._open_to_all = open_to_all
        self.on("/token", self._give)

    def _give(self, request: Request, line: Line) -> None:
        form = request.body.decode() if request.method == "POST" else ""
        asked = parse_qs(form or urlsplit(request.target).query)
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = request.headers.get("authorization") == f"Basic {basic}"
        known |= asked.get("refresh_token") == [PASSWORD]
        if not known and not self._open_to_all:
            answer(401, body=b'{"errors":[{"code":"UNAUTHORIZED"}]}')(request, line)
            return
        access = []
        for scope in asked.get("scope", []):
            kind, name, actions = scope.split(":", 2)
            wanted = actions.split(",") if known else ["pull"]
            access.append({"type": kind, "name": name, "actions": wanted})
        token = self._signed({"aud": asked["service"][0], "access": access})
        answer(200, body=json.dumps({"access_token": token}).encode())(request, line)

    def _signed(self, claims: dict[str, object]) -> str:
        now = int(time.time())
        claims = {"iss": "tests", "sub": "", "jti": "1", **claims}
        claims |= {"iat": now - 10, "nbf": now - 10, "exp": now + 300}
        head = {"typ": "JWT", "alg": "ES256", "x5c": [self._x5c]}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (head, claims))
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        r, s = utils.decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def running_registry(
    directory: Path,
    *,
    authority: trustme.CA | None = None,
    password: bool = False,
    tokens: TokenServer | None = None,
    root: Path | None = None,
) -> Iterator[Registry]:
    """Run one for a block.

    Args:
        directory: For its files; exists.
        authority: Signs its certificate; None means plain http.
        password: It wants user and password.
        tokens: It wants tokens from there.
        root: Where its content is; may be shared by several.
    """
    port = free_port()
    config = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(root or directory / "content")}},
        "http": {"addr": f"127.0.0.1:{port}", **_tls(directory, authority)},
        **_auth(directory, password=password, tokens=tokens),
    }
    (directory / "config.json").write_text(json.dumps(config))  # JSON is YAML
    log = directory / "log"
    command = ["docker-registry", "serve", str(directory / "config.json")]
    with serving(command, port, log):
        pem = authority.cert_pem.bytes().decode() if authority else ""
        yield Registry(f"127.0.0.1:{port}", pem, directory / "certificates", log)


def _tls(directory: Path, authority: trustme.CA | None) -> dict[str, object]:
    if authority is None:
        return {}
    (directory / "certificates").mkdir()
    authority.cert_pem.write_to_path(directory / "certificates" / "ca.crt")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(directory / "certificate.pem")
    return {"tls": {"certificate": str(directory / "certificate.pem"),
                    "key": str(directory / "key.pem")}}  # fmt: skip


def _auth(directory: Path, *, password: bool, tokens: TokenServer | None) -> dict[str, object]:
    if tokens is not None:
        token = {"realm": f"{tokens.url}/token", "service": "tests", "issuer": "tests",
                 "rootcertbundle": str(tokens.bundle)}  # fmt: skip
        return {"auth": {"token": token}}
    if password:
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (directory / "htpasswd").write_text(f"{USER}:{hashed}\n")
        return {"auth": {"htpasswd": {"realm": "tests", "path": str(directory / "htpasswd")}}}
    return {}
