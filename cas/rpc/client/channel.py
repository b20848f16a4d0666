"""How the client reaches a service."""

__all__ = ["open_channel"]

from functools import partial
from pathlib import Path
from urllib.parse import quote

import grpc

from cas.errors import ServiceUnavailableError
from cas.rpc.client.opening import NO_WAIT, Wait, ask_again
from cas.rpc.probe import probe

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # Lists come in messages of bounded size; an image's documents come in one.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    # The default back-off grows to two minutes: a service that was started again would seem dead.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
)


def open_channel(socket: Path, *, listening: Wait = NO_WAIT) -> grpc.Channel:
    """Give a channel to a service that takes connections just now; the caller closes it.

    Args:
        socket: The service's unix socket.
        listening: For somebody to listen on it.

    Raises:
        ServiceUnavailableError: Nobody answers on the socket.
        DeniedError: The socket may not be used by this user.
        SocketPathError: The path is too long for a socket.
    """
    ask_again(partial(probe, socket), wait=listening, refused=ServiceUnavailableError)
    return grpc.insecure_channel(f"unix://{quote(str(socket))}", options=_OPTIONS)
