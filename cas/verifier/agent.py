"""The verifier's process."""

__all__ = ["main"]

from pathlib import Path

import msgspec

from cas.agent.serving import CallContext, Confinable, serve
from cas.errors import InvalidNameError
from cas.model.transfer_name import TransferName
from cas.verifier.requests import Verified, Verify
from cas.verifier.verification import verify_pending


def main() -> int:
    """Be the verifier until the pipe on standard input ends."""
    return serve(_prepare)


def _prepare(_options: bytes) -> Confinable:
    return Confinable(_handle)


def _handle(request: bytes, context: CallContext) -> msgspec.Struct:
    try:
        asked = msgspec.json.decode(request, type=Verify)
    except msgspec.DecodeError as error:
        raise InvalidNameError(
            f"the verifier is asked something that it cannot: {error}"
        ) from error
    return _verify(asked, context)


def _verify(asked: Verify, context: CallContext) -> Verified:
    def progress(done: int, total: int | None) -> None:
        context.cancel.check()
        context.progress(done, total)

    return Verified(verify_pending(Path(), TransferName.parse(asked.name), asked.size, progress))
