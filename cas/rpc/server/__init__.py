"""The server side of ``cas.v1``: use cases of a store behind a unix socket."""

__all__ = ["CallObserver", "ServedStore", "Server"]

from cas.rpc.server.registry import CallObserver
from cas.rpc.server.served import ServedStore
from cas.rpc.server.server import Server
