"""A software TPM of a test's own: started, measured into, rebooted, put in bad states."""

__all__ = ["SoftwareTpm"]

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2B_AUTH,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPM2B_SENSITIVE_DATA,
    TPMA_OBJECT,
    TPML_DIGEST_VALUES,
    TPMS_SENSITIVE_CREATE,
    TPMT_HA,
    TPMU_HA,
    TSS2_Exception,
)

from tests.support.daemon import WAIT_SECONDS

_MEASURED = (0, 4)
_SLOTS = 3
_AUTH_FAIL = 0x8E
_LOCKOUT = 0x921
_GUARDED_BY_PASSWORD = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.USERWITHAUTH


class SoftwareTpm:
    """A running TPM whose firmware has measured something; a context manager.

    Args:
        directory: For its state and sockets; short, as unix sockets are.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._socket = directory / "s"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def tcti(self) -> str:
        """How it is reached."""
        return f"swtpm:path={self._socket}"

    def start(self, *, measured: bool = True) -> None:
        """Start it, as firmware does at power on."""
        self._process = subprocess.Popen(
            [
                "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._directory}",
                "--server", f"type=unixio,path={self._socket}",
                "--ctrl", f"type=unixio,path={self._socket}.ctrl",
                "--flags", "not-need-init,startup-clear",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _await_socket(self._socket)
        if measured:
            for pcr in _MEASURED:
                self.extend(pcr, b"firmware")

    def stop(self) -> None:
        """Switch it off. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        for path in (self._socket, self._directory / "s.ctrl"):
            path.unlink(missing_ok=True)

    def reboot(self, *, measured: bool = True) -> None:
        """Switch it off and on: its registers begin anew, its seeds stay."""
        self.stop()
        self.start(measured=measured)

    def extend(self, pcr: int, what: bytes) -> None:
        """Measure something into a register."""
        with ESAPI(self.tcti) as esapi:
            digest = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=what.ljust(32, b"\0")))
            esapi.pcr_extend(ESYS_TR(pcr), TPML_DIGEST_VALUES([digest]))

    def clear(self) -> None:
        """Give it another owner, for whom older sealings are nothing."""
        with ESAPI(self.tcti) as esapi:
            esapi.clear(ESYS_TR.RH_LOCKOUT)

    def set_owner_password(self, password: str) -> None:
        """Let the owner hierarchy ask for a password."""
        with ESAPI(self.tcti) as esapi:
            esapi.hierarchy_change_auth(ESYS_TR.OWNER, TPM2B_AUTH(password))

    def lock_out(self) -> None:
        """Fail authorisations until the TPM takes no more of them."""
        with ESAPI(self.tcti) as esapi:
            esapi.dictionary_attack_parameters(1, 1000, 1000)
            secret = TPMS_SENSITIVE_CREATE(
                userAuth=TPM2B_AUTH("right"), data=TPM2B_SENSITIVE_DATA(b"x")
            )
            handle, *_ = esapi.create_primary(
                TPM2B_SENSITIVE_CREATE(secret),
                TPM2B_PUBLIC.parse("keyedhash", objectAttributes=_GUARDED_BY_PASSWORD),
            )
            esapi.tr_set_auth(handle, "wrong")
            for expected in (_AUTH_FAIL, _LOCKOUT):
                with pytest.raises(TSS2_Exception) as refusal:
                    esapi.unseal(handle)
                assert refusal.value.error == expected
            esapi.flush_context(handle)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let it answer nothing for a while, as one that somebody else keeps busy."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Take all its slots for objects, as a program without a resource manager."""
        with ESAPI(self.tcti) as esapi:
            handles = [esapi.create_primary(None, "ecc")[0] for _ in range(_SLOTS)]
            yield
            for handle in handles:
                esapi.flush_context(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _await_socket(path: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                assert time.monotonic() < deadline, "the software TPM did not start"
                time.sleep(0.005)
            else:
                return
