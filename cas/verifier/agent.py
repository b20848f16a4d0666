"""The verifier's process."""

__all__ = ["main"]

from pathlib import Path
from typing import NoReturn, assert_never

import msgspec

from cas.agent.serving import CallContext, Confinable, serve
from cas.errors import InvalidNameError
from cas.model.digest import Digest
from cas.model.transfer_name import TransferName
from cas.verifier.requests import (
    CheckCosign,
    CheckDetached,
    Options,
    Request,
    SignedBy,
    Verified,
    Verify,
)
from cas.verifier.verification import verify_pending

_HERE = Path()
_REQUESTS: "msgspec.json.Decoder[Request]" = msgspec.json.Decoder(Request)


def main() -> NoReturn:
    """Be the verifier until the pipe on standard input ends."""
    serve(_prepare)


def _prepare(options: bytes) -> Confinable:
    if msgspec.json.decode(options, type=Options).signatures:
        from cas.verifier.signatures import preload  # noqa: PLC0415 - slow; only a policy needs it

        preload()
    return Confinable(_handle)


def _handle(request: bytes, context: CallContext) -> msgspec.Struct:
    try:
        asked = _REQUESTS.decode(request)
    except msgspec.DecodeError as error:
        raise InvalidNameError(f"the verifier is asked what it does not know: {error}") from error
    match asked:
        case Verify():
            return _verify(asked, context)
        case CheckCosign():
            return _check_cosign(asked)
        case CheckDetached():
            return _check_detached(asked)
        case _:
            assert_never(asked)


def _verify(asked: Verify, context: CallContext) -> Verified:
    def progress(done: int, total: int | None) -> None:
        context.cancel.check()
        context.progress(done, total)

    return Verified(verify_pending(_HERE, TransferName.parse(asked.name), asked.size, progress))


def _check_cosign(asked: CheckCosign) -> SignedBy:
    from cas.verifier.signatures import CosignSignature, check_cosign  # noqa: PLC0415 - see above

    signatures = [CosignSignature(each.payload, each.signature) for each in asked.signatures]
    image = Digest.parse(asked.image)
    return SignedBy(check_cosign(image, signatures, asked.keys, asked.identity))


def _check_detached(asked: CheckDetached) -> SignedBy:
    from cas.verifier.signatures import check_detached  # noqa: PLC0415 - see above

    content = Digest.parse(asked.content)
    return SignedBy(check_detached(_HERE, content, asked.signature, asked.keys))
