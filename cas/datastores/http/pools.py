"""Connections: TLS, proxies and time limits of one transport, in urllib3's terms.

Everything comes from the settings: neither the environment nor any file but the system's list of
authorities is read.
"""

__all__ = ["Pools", "tls_context"]

import ipaddress
import logging
import os
import ssl
import threading
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import urllib3
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Timeout

from cas.datastores.http.lines import Connection, TLSConnection
from cas.datastores.http.urls import split_user
from cas.datastores.redaction import redact
from cas.datastores.secret import Secret
from cas.datastores.settings import Proxies, TransportSettings
from cas.errors import ConfigError

_CONNECTIONS_PER_HOST = 16


def _redacted(record: logging.LogRecord) -> bool:
    record.msg, record.args = redact(record.getMessage()), None
    record.exc_info = None
    return True


# urllib3 logs whole URLs, signatures included.
for _name in ("urllib3.connection", "urllib3.connectionpool", "urllib3.poolmanager"):
    logging.getLogger(_name).addFilter(_redacted)


def tls_context(settings: TransportSettings) -> ssl.SSLContext:
    """Make the TLS configuration of a transport: the system's authorities and those given.

    Raises:
        ConfigError: The given certificates, or a key, do not parse.
    """
    context = ssl.create_default_context()
    if settings.ca_pem:
        try:
            context.load_verify_locations(cadata=settings.ca_pem)
        except (ssl.SSLError, ValueError) as error:
            message = "the CA certificates of a datastore do not parse; PEM is needed"
            raise ConfigError(message) from error
    for pem in settings.client_pem:
        _present(context, pem)
    if settings.insecure:
        # Who asks for it need not be told at every connection.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _present(context: ssl.SSLContext, pem: Secret) -> None:
    """Let a context show a certificate; Python's ssl takes it from a file and nowhere else."""
    with os.fdopen(os.memfd_create("client"), "wb") as file:
        file.write(pem.reveal().encode())
        file.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            message = (
                "a client certificate of a datastore does not parse; PEM is needed, with its key, "
                "which has no password"
            )
            raise ConfigError(message) from error


class _Pool(HTTPConnectionPool):
    ConnectionCls = Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = TLSConnection


class Pools:
    """The connections of one transport; may be used by several threads at once."""

    def __init__(self, settings: TransportSettings) -> None:
        self._context = tls_context(settings)
        self._proxies = settings.proxies
        self._timeout = Timeout(connect=settings.connect_seconds, read=settings.idle_seconds)
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._guard = threading.Lock()

    def for_url(self, url: str) -> urllib3.PoolManager:
        """Give the connections that lead to a URL, through a proxy if one is meant for it.

        Raises:
            ConfigError: The proxy's URL does not parse.
        """
        proxy = _proxy_for(url, self._proxies)
        with self._guard:
            key = proxy.reveal()
            if key not in self._managers:
                self._managers[key] = self._manager(proxy)
            return self._managers[key]

    def _manager(self, proxy: Secret) -> urllib3.PoolManager:
        common: dict[str, Any] = {
            "ssl_context": self._context,
            "timeout": self._timeout,
            "maxsize": _CONNECTIONS_PER_HOST,
            "retries": False,
        }
        if proxy:
            url, user, password = split_user(_with_scheme(proxy.reveal()))
            headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
            try:
                manager: urllib3.PoolManager = urllib3.ProxyManager(
                    url, proxy_headers=headers, proxy_ssl_context=self._context, **common
                )
            except (ValueError, urllib3.exceptions.HTTPError) as error:
                message = "the URL of a proxy does not parse; write http://host:port"
                raise ConfigError(message) from error
        else:
            manager = urllib3.PoolManager(**common)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager

    def close(self) -> None:
        """Close what is idle; what is in use closes when it is given back. Idempotent."""
        with self._guard:
            for manager in self._managers.values():
                manager.clear()


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_for(url: str, proxies: Proxies) -> Secret:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _in_networks(host, proxies.bypass):
        return Secret()
    if proxy_bypass_environment(parts.netloc.rpartition("@")[2], {"no": proxies.bypass}):
        return Secret()
    return proxies.https if parts.scheme == "https" else proxies.http


def _in_networks(host: str, bypass: str) -> bool:
    """Whether an address is in one of the networks of a ``no_proxy``, which Python leaves out."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in bypass.split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
