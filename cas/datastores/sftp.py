"""Files on an SSH server; one connection per datastore, one channel per download.

The server is who its host key says, and is trusted by the keys in the settings only. Size and time
of a file are its validator.
"""

__all__ = ["SFTPSource"]

import errno
import io
import logging
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Self
from urllib.parse import unquote, urlsplit

import paramiko

from cas.datastores.http.urls import split_user
from cas.datastores.port import Download, RemoteObject, Validator
from cas.datastores.redaction import redact
from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials, SourceSettings
from cas.datastores.waiting import awaited, limited
from cas.errors import (
    AuthenticationError,
    CasError,
    ConfigError,
    SourceChangedError,
    SourceNotFoundError,
    SourceStalledError,
    SourceUnavailableError,
    UntrustedServerError,
)

_KIND = "file"
_SSH_PORT = 22
_TIMES_PATIENCE = 3
"""How many limits the look-up of a name and the attempts at its addresses may take together."""
_READ_BYTES = 32 * 1024
"""What every server answers at once."""
_WINDOW_BYTES = 2 * 1024 * 1024
"""Asked for at once: several reads are on the way together, and memory is bounded."""

# It logs refused keys and broken lines by itself, with tracebacks.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _KnownHostsOnly(paramiko.MissingHostKeyPolicy):
    def missing_host_key(self, _: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise UntrustedServerError(
            f"sftp://{hostname}: the host key {key.get_name()} {key.fingerprint} is not known; "
            "give it as a line of known_hosts if it is right"
        )


class _AnyHost(paramiko.MissingHostKeyPolicy):
    def missing_host_key(self, _: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        pass


class SFTPSource:
    """Files below one directory of a server.

    Args:
        settings: URL ``sftp://user@host:port/directory``; ``insecure`` takes any host key.

    Raises:
        ConfigError: The URL, a host key or the private key does not parse.
    """

    def __init__(self, settings: SourceSettings) -> None:
        base, user, password = split_user(settings.url)
        parts = urlsplit(base)
        own = Credentials(username=user, password=Secret(password))
        self._credentials = own if user and password else settings.credentials
        self._user = user or settings.credentials.username
        self._host, self._port = parts.hostname or "", parts.port or _SSH_PORT
        self._directory = unquote(parts.path)
        self._transport = settings.transport
        self._host_keys = _parse_host_keys(settings.host_keys)
        self._key = _parse_key(self._credentials.private_key)
        self._name = base.rstrip("/")
        self._client: paramiko.SSHClient | None = None
        self._line: socket.socket | None = None
        self._guard = threading.Lock()

    @property
    def name(self) -> str:
        """The directory as a URL, without user."""
        return self._name

    def stat(self, path: str, /) -> RemoteObject:
        """Ask about a file without reading it."""
        with self._asking(path), closing(self._channel()) as channel:
            return _described(channel.stat(self._place(path)))

    @contextmanager
    def open(
        self, path: str, /, *, offset: int = 0, validator: Validator | None = None
    ) -> Iterator[Download]:
        """Read a file from ``offset`` on; see :class:`cas.datastores.port.Source`."""
        with ExitStack() as stack:
            with self._asking(path):
                channel = stack.enter_context(closing(self._channel()))
                file = stack.enter_context(closing(channel.open(self._place(path), "rb")))
                remote = _described(file.stat())
            if offset and remote.validator != validator:
                raise SourceChangedError(f"{self.name}: {path} was replaced while it was read")
            yield Download(remote, self._chunks(path, file, offset, remote), channel.close)

    def _chunks(
        self, path: str, file: paramiko.SFTPFile, offset: int, remote: RemoteObject
    ) -> Iterator[bytes]:
        size = remote.size or 0
        with self._translated(path):
            while offset < size:
                until = min(offset + _WINDOW_BYTES, size)
                reads = range(offset, until, _READ_BYTES)
                for chunk in file.readv([(at, min(_READ_BYTES, until - at)) for at in reads]):
                    yield chunk
                    offset += len(chunk)
                    if not chunk:
                        raise EOFError
            if _described(file.stat()) != remote:
                raise SourceChangedError(f"{self.name}: {path} was changed while it was read")

    def _channel(self) -> paramiko.SFTPClient:
        with self._guard:
            transport = self._client.get_transport() if self._client is not None else None
            if self._client is None or transport is None or not transport.is_active():
                self._client = self._connect()
            channel = self._client.open_sftp()
        line = channel.get_channel()
        if line is not None:
            line.settimeout(self._transport.idle_seconds)
        return channel

    def _connect(self) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.get_host_keys().update(self._host_keys)
        policy = _AnyHost() if self._transport.insecure else _KnownHostsOnly()
        client.set_missing_host_key_policy(policy)
        patience = self._transport.connect_seconds
        self._line = awaited(
            lambda: socket.create_connection((self._host, self._port), patience),
            socket.socket.close,
            _TIMES_PATIENCE * patience,
        )
        try:
            client.connect(
                self._host,
                self._port,
                self._user,
                self._credentials.password.reveal() or None,
                self._key,
                timeout=patience,
                banner_timeout=patience,
                auth_timeout=patience,
                channel_timeout=patience,
                allow_agent=False,
                look_for_keys=False,
                sock=self._line,
            )
        except BaseException:
            client.close()
            self._line.close()
            raise
        return client

    def _break_off(self) -> None:
        line = self._line
        if line is not None:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _place(self, path: str) -> str:
        return f"{self._directory.rstrip('/')}/{path.lstrip('/')}" if path else self._directory

    @contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        with self._translated(path), limited(self._break_off):
            yield

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        what = f"{self.name}: {path}" if path else self.name
        try:
            yield
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise _failure(error, what) from error

    def close(self) -> None:
        """Close the connection. Idempotent."""
        with self._guard:
            client, self._client = self._client, None
        if client is not None:
            with suppress(OSError, EOFError):
                client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _described(status: paramiko.SFTPAttributes) -> RemoteObject:
    if status.st_mode is not None and not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(errno.ENOENT, "not a regular file")
    if status.st_size is None or status.st_mtime is None:
        return RemoteObject(status.st_size, None)
    return RemoteObject(status.st_size, Validator(_KIND, f"{status.st_mtime}:{status.st_size}"))


def _failure(error: Exception, what: str) -> CasError:
    said = redact(str(error) or type(error).__name__)[:300]
    match error:
        case paramiko.AuthenticationException():
            return AuthenticationError(f"{what}: the server refuses user, password or key")
        case paramiko.BadHostKeyException():
            return UntrustedServerError(
                f"{what}: the server's host key is another one than the one known; somebody may "
                "answer in its place"
            )
        case FileNotFoundError():
            return SourceNotFoundError(f"{what}: the server has no such file ({said})")
        case PermissionError():
            return AuthenticationError(f"{what}: the server does not allow to read it ({said})")
        case TimeoutError():
            return SourceStalledError(f"{what}: the server has sent nothing of use for too long")
        case _:
            return SourceUnavailableError(f"{what}: the connection failed or broke off ({said})")


def _parse_host_keys(text: str) -> paramiko.HostKeys:
    keys = paramiko.HostKeys()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = paramiko.hostkeys.HostKeyEntry.from_line(line, number)
        except (paramiko.SSHException, ValueError) as error:
            raise ConfigError(f"line {number} of the host keys does not parse") from error
        if entry is None or entry.key is None:
            raise ConfigError(f"line {number} of the host keys does not parse")
        for name in entry.hostnames or []:
            keys.add(name, entry.key.get_name(), entry.key)
    return keys


def _parse_key(secret: Secret) -> paramiko.PKey | None:
    if not secret:
        return None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with suppress(paramiko.SSHException, ValueError):
            return kind.from_private_key(io.StringIO(secret.reveal()))
    raise ConfigError("the private key does not parse; an unencrypted one of OpenSSH is needed")
