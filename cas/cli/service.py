"""Whether a command goes through the service; decided without loading gRPC where it does not."""

__all__ = ["connect_service"]

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from cas.errors import (
    ServiceMismatchError,
    ServiceUnavailableError,
    SocketPathError,
)
from cas.model.settings import ServiceUse, Settings

if TYPE_CHECKING:
    from cas.rpc.client import Client

_log = logging.getLogger(__name__)


def connect_service(settings: Settings, *, on_wait: Callable[[], object]) -> "Client | None":
    """Connect to the service of the store that the settings name.

    Args:
        settings: Of the command.
        on_wait: Called once when the service has just been started and opens its store, which is
            waited for.

    Returns:
        None where commands open the store themselves: because the settings say so, or because
        they leave it open and no service of this store answers.

    Raises:
        DeniedError: Its socket may not be used by this user.
        DeadlineExceededError: It accepts calls and does not answer them.
        ServiceUnavailableError: It must be used and does not answer.
        ServiceMismatchError: It must be used and works on another store.
        SocketPathError: It must be used and its socket's path is too long.
    """
    if settings.service is ServiceUse.NEVER:
        return None
    try:
        return _connect(settings, on_wait)
    except (ServiceUnavailableError, ServiceMismatchError, SocketPathError) as error:
        if settings.service is ServiceUse.ALWAYS:
            raise
        _log.info("store is opened without the service reason=%s", error.message)
        return None


def _connect(settings: Settings, on_wait: Callable[[], object]) -> "Client":
    from cas.rpc.probe import probe

    probe(settings.service_socket)
    from cas.rpc.client import Client

    client = Client.connect(
        settings.service_socket,
        seconds=settings.wait_seconds,
        on_wait=on_wait,
        limits=settings.limits,
    )
    try:
        client.require_store(
            persist=settings.persist, namespace=settings.namespace, address=settings.address
        )
    except BaseException:
        client.close()
        raise
    return client
