"""A TPM 2.0 through tpm2-tss: the few commands that sealing needs.

What a connection makes in the TPM is flushed when its block ends: without a resource manager a TPM
has three slots. Keys travel encrypted under a salted session, against listeners on the bus. Raises
the library's ``TSS2_Exception``; callers translate.

Source: TPM 2.0 Library, Part 1 (19, sessions; 23, protected storage), Part 3 (commands).
"""

__all__ = ["SealedObject", "Tpm"]

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_DIGEST,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPM2B_SENSITIVE_DATA,
    TPMA_OBJECT,
    TPMA_SESSION,
    TPMS_SENSITIVE_CREATE,
    TPMT_PUBLIC,
    TPMT_SYM_DEF,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

from cas.fsops.secrets import Secret

_DIGESTS_PER_READ = 8
"""More do not fit into one answer."""
_STORAGE_KEY = "ecc256:aes128cfb"
_STORAGE_ATTRIBUTES = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.USERWITHAUTH
    | TPMA_OBJECT.NODA
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.DECRYPT
)
_SEALED_ATTRIBUTES = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.NODA
"""NODA: a lockout after failed authorisations of others does not touch it."""
_SESSION_ATTRIBUTES = TPMA_SESSION.CONTINUESESSION | TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT
_UNENCRYPTED = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)


@dataclass(frozen=True, slots=True)
class SealedObject:
    """A sealed key outside of the TPM.

    Args:
        public: TPM2B_PUBLIC.
        private: TPM2B_PRIVATE.
    """

    public: bytes
    private: bytes


class Tpm:
    """An open TPM; a context manager.

    Args:
        tcti: How it is reached, such as ``device:/dev/tpmrm0``.
    """

    def __init__(self, tcti: str) -> None:
        with ExitStack() as stack:
            self._esapi = stack.enter_context(ESAPI(tcti))
            self._parent = ESYS_TR.NONE
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def read_pcrs(self, pcrs: Sequence[int]) -> dict[int, bytes]:
        """Read registers of bank sha256; fewer than asked for where the TPM lacks the bank."""
        values: dict[int, bytes] = {}
        rest = sorted(pcrs)
        while rest:
            now, rest = rest[:_DIGESTS_PER_READ], rest[_DIGESTS_PER_READ:]
            _, _, digests = self._esapi.pcr_read(_selection(now))
            values.update(zip(now, map(bytes, digests), strict=False))
        return values

    def open_storage_key(self) -> bytes:
        """Make the storage key, the same at each call as long as the owner does not change.

        Returns:
            Its name, which no other TPM's storage key has.
        """
        template = TPM2B_PUBLIC.parse(_STORAGE_KEY, objectAttributes=_STORAGE_ATTRIBUTES)
        self._parent, public, *_ = self._esapi.create_primary(None, template)
        self._stack.callback(self._esapi.flush_context, self._parent)
        return bytes(public.get_name())

    def policy_digest(self, pcrs: Sequence[int], pcr_digest: bytes) -> bytes:
        """Compute the policy that asks for certain values of registers.

        Args:
            pcrs: The registers.
            pcr_digest: sha256 of their values, one after the other.
        """
        trial = self._esapi.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.TRIAL, _UNENCRYPTED, TPM2_ALG.SHA256
        )
        try:
            self._esapi.policy_pcr(trial, TPM2B_DIGEST(pcr_digest), _selection(pcrs))
            return bytes(self._esapi.policy_get_digest(trial))
        finally:
            self._esapi.flush_context(trial)

    def seal(self, key: Secret, policy: bytes | None) -> SealedObject:
        """Seal a key under the storage key, and a policy if there is one."""
        sensitive = TPM2B_SENSITIVE_CREATE(
            TPMS_SENSITIVE_CREATE(data=TPM2B_SENSITIVE_DATA(bytes(key.size)))
        )
        inner = sensitive.sensitive.data.buffer  # the library's memory itself, no copy
        inner[:] = key.view
        try:
            with self._session(TPM2_SE.HMAC) as session:
                private, public, *_ = self._esapi.create(
                    self._parent, sensitive, _sealed_template(policy), session2=session
                )
        finally:
            inner[:] = bytes(key.size)
        return SealedObject(public.marshal(), private.marshal())

    @contextmanager
    def loaded(self, sealed: SealedObject) -> Iterator[ESYS_TR]:
        """Load a sealed key into the TPM for a block."""
        private, _ = TPM2B_PRIVATE.unmarshal(sealed.private)
        public, _ = TPM2B_PUBLIC.unmarshal(sealed.public)
        handle = self._esapi.load(self._parent, private, public)
        try:
            yield handle
        finally:
            self._esapi.flush_context(handle)

    def unseal(self, handle: ESYS_TR, pcrs: Sequence[int], into: memoryview) -> int:
        """Unseal a loaded key; its size may differ from that of ``into``, which then stays zero.

        Args:
            handle: From :meth:`loaded`.
            pcrs: Registers of its policy; empty if it has none.
            into: Gets the key.

        Returns:
            The size of the key.
        """
        with self._session(TPM2_SE.POLICY if pcrs else TPM2_SE.HMAC) as session:
            if pcrs:
                self._esapi.policy_pcr(session, TPM2B_DIGEST(), _selection(pcrs))
            data = self._esapi.unseal(handle, session1=session).buffer
        try:
            if len(data) == len(into):
                into[:] = data
            return len(data)
        finally:
            data[:] = bytes(len(data))

    @contextmanager
    def _session(self, kind: TPM2_SE) -> Iterator[ESYS_TR]:
        symmetric = TPMT_SYM_DEF(
            algorithm=TPM2_ALG.AES,
            keyBits=TPMU_SYM_KEY_BITS(aes=128),
            mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB),
        )
        session = self._esapi.start_auth_session(
            self._parent, ESYS_TR.NONE, kind, symmetric, TPM2_ALG.SHA256
        )
        try:
            self._esapi.trsess_set_attributes(session, _SESSION_ATTRIBUTES)
            yield session
        finally:
            self._esapi.flush_context(session)


def _selection(pcrs: Sequence[int]) -> str:
    return "sha256:" + ",".join(map(str, pcrs))


def _sealed_template(policy: bytes | None) -> TPM2B_PUBLIC:
    attributes = _SEALED_ATTRIBUTES
    if policy is None:
        attributes |= TPMA_OBJECT.USERWITHAUTH
    area = TPMT_PUBLIC(
        type=TPM2_ALG.KEYEDHASH,
        nameAlg=TPM2_ALG.SHA256,
        objectAttributes=attributes,
        authPolicy=TPM2B_DIGEST(policy or b""),
    )
    area.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG.NULL
    return TPM2B_PUBLIC(publicArea=area)
