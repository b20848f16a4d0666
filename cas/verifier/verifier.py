"""The verifier, as those with the rights of root use it."""

__all__ = ["Verifier"]

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from cas.agent.account import find_group
from cas.agent.process import AgentProcess
from cas.agent.program import Launch, launch_agent
from cas.errors import AgentError, IntegrityError
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.settings import Settings
from cas.model.signature_policy import PublicKey, Rule
from cas.model.transfer_name import TransferName
from cas.verifier.handover import HandOver
from cas.verifier.program import verifier_program
from cas.verifier.requests import (
    CheckCosign,
    CheckDetached,
    Options,
    Signature,
    SignedBy,
    Verified,
    Verify,
)

_log = logging.getLogger(__name__)


class Verifier:
    """A running verifier; a context manager, whose process lives as long as the context.

    May be used by several threads; the one that enters the context has to stay until the others
    are done.

    Args:
        settings: Layout and accounts.
        signatures: Whether it will be asked to check signatures.
        launch: Gives its process.
    """

    def __init__(
        self, settings: Settings, *, signatures: bool = False, launch: Launch = launch_agent
    ) -> None:
        program = verifier_program(settings)
        readers = find_group(settings.owners["volumemgr"])
        self._layout = settings.layout
        self._handover = HandOver(settings.layout, program.account.user, readers)
        self._process = AgentProcess(
            program, msgspec.json.encode(Options(signatures)), launch=launch
        )

    def __enter__(self) -> Self:
        """Start the process; raises as :meth:`cas.agent.process.AgentProcess.__enter__`."""
        self._process.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    def missing(self) -> Mapping[str, str]:
        """Wait until it is confined; see :meth:`cas.agent.process.AgentProcess.missing`."""
        return self._process.missing()

    def verify(
        self,
        name: TransferName,
        size: int | None = None,
        *,
        cancel: Cancellation | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Path:
        """Take a download over, prove that it has the digest it claims, and publish it.

        A download that is not what it claims is removed. Idempotent: one that an earlier call had
        taken over is proven again.

        Args:
            name: Of the download.
            size: Bytes it must have; None if nobody knows.
            cancel: Ends the call; the file waits in ``pending`` for the next.
            progress: Told of bytes hashed.

        Returns:
            The file in ``verified``.

        Raises:
            DigestMismatchError: It has another digest.
            SizeMismatchError: It has another size.
            IntegrityError: It is not a file that nobody else can change.
            SourceNotFoundError: There is no such download.
            AgentError: The verifier's process ended.
            InterruptedOperationError: ``cancel`` was set.
            StorageError: A system call failed.
        """
        if os.path.lexists(self._layout.download(name)):
            self._handover.take(name)
        else:
            self._handover.seal(name)
        if cancel is not None:
            cancel.check()  # its agent may have hashed a small file before it hears of it
        self._process.call(Verify(str(name), size), Verified, cancel=cancel, progress=progress)
        return self._layout.verified / name.digest.hex

    def verify_leftover(
        self,
        name: TransferName,
        size: int | None = None,
        *,
        cancel: Cancellation | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> bool:
        """Prove anew what a process left that ended after it had handed a download over.

        It may lie in ``pending``, or in ``verified``, whose name counts for nothing: this process
        did not see it proven. What is not what it claims is removed.

        Args:
            name: Of the download that it was.
            size: As :meth:`verify`, and so are the others.
            cancel: See there.
            progress: See there.

        Returns:
            Whether the file is in ``verified`` now; False if nothing of use was left.

        Raises:
            AgentError: The verifier's process ended.
            InterruptedOperationError: ``cancel`` was set.
            StorageError: A system call failed.
        """
        taken_back = self._handover.take_back(name)
        if not taken_back and not os.path.lexists(self._layout.pending / str(name)):
            return False
        try:
            self.verify(name, size, cancel=cancel, progress=progress)
        except IntegrityError as error:
            _log.info("leftover of a transfer is of no use reason=%s", error)
            return False
        return True

    def check_cosign(
        self, image: Digest, signatures: Sequence[tuple[bytes, str]], rule: Rule
    ) -> PublicKey:
        """Find the key of a rule that signed an image with cosign.

        Args:
            image: Digest of the manifest or index.
            signatures: Signed documents, each with its signature in base64.
            rule: Of the policy.

        Raises:
            SignatureError: No signature is by one of the keys and for this image.
            ConfigError: A key cannot be used.
        """
        listed = [Signature(payload, signature) for payload, signature in signatures]
        keys = [key.pem for key in rule.keys]
        return self._signer(CheckCosign(str(image), listed, keys, rule.identity), rule)

    def check_detached(self, content: Digest, signature: bytes, rule: Rule) -> PublicKey:
        """Find the key of a rule that signed a file, which is in ``verified``.

        Raises:
            SignatureError: None of them did.
            ConfigError: A key cannot be used.
        """
        keys = [key.pem for key in rule.keys]
        return self._signer(CheckDetached(str(content), signature, keys), rule)

    def _signer(self, request: CheckCosign | CheckDetached, rule: Rule) -> PublicKey:
        number = self._process.call(request, SignedBy).key
        if not 0 <= number < len(rule.keys):
            raise AgentError(f"the verifier names key {number} of {len(rule.keys)}")
        return rule.keys[number]
