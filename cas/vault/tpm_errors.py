"""From response codes of a TPM and its library to the errors of :mod:`cas.errors`.

Decides by number, never by text.

Source: TPM 2.0 Library, Part 2, 6.6 (response codes); TSS 2.0 Overview, "Response code layering".
"""

__all__ = ["is_refused_sealing", "is_wrong_policy", "tpm_error", "translated"]

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from tpm2_pytss import TSS2_Exception

from cas.errors import CasError, TpmError, TpmUnavailableError

_LAYER_MASK = 0xFF0000
_TPM_LAYER = 0x000000
_TCTI_LAYER = 0x0A0000
_FORMAT_ONE = 0x80
_PCR_CHANGED = 0x128
_POLICY_FAIL = 0x9D
_AUTH_UNAVAILABLE = 0x12F
"""The object asks for another kind of authorisation than its note says."""
_TEMPORARY: Mapping[int, str] = MappingProxyType(
    {
        0x902: "all its slots for objects are taken; use the resource manager /dev/tpmrm0",
        0x903: "all its slots for sessions are taken; use the resource manager /dev/tpmrm0",
        0x904: "its memory is full; use the resource manager /dev/tpmrm0",
        0x908: "it is busy; try again",
        0x90A: "it is testing itself; try again",
        0x921: "it is in lockout after failed authorisations; wait, or clear the lockout",
        0x922: "it is busy; try again",
    }
)
_ADVICE: Mapping[int, str] = MappingProxyType(
    {
        0x100: "it was not started up; firmware or kernel do that",
        0x101: "it failed its self-test and takes no commands until the machine is restarted",
        0x120: "its owner hierarchy is disabled; look at the firmware's set-up",
        0x8E: "its owner hierarchy has a password; clear that",
        0xA2: "its owner hierarchy has a password; clear that",
    }
)


def _error_number(code: int) -> int:
    """Strip what says which handle, parameter or session was meant."""
    number = code & ~_LAYER_MASK
    return number & 0x3F | _FORMAT_ONE if number & _FORMAT_ONE else number


def is_wrong_policy(error: TSS2_Exception) -> bool:
    """Tell whether the registers are not those that a policy wants."""
    code = int(error.rc)
    return code & _LAYER_MASK == _TPM_LAYER and _error_number(code) in (_POLICY_FAIL, _PCR_CHANGED)


def is_refused_sealing(error: TSS2_Exception) -> bool:
    """Tell whether an answer is about an argument: given a sealing, that it is broken."""
    code = int(error.rc)
    if code & _LAYER_MASK == _TCTI_LAYER or _error_number(code) in _TEMPORARY:
        return False
    if code & _LAYER_MASK != _TPM_LAYER or _error_number(code) == _AUTH_UNAVAILABLE:
        return True
    return bool(code & _FORMAT_ONE)


def tpm_error(action: str, tcti: str, error: TSS2_Exception) -> CasError:
    """Make the error for a failed command; the caller raises it ``from error``.

    Args:
        action: What was asked of it, such as ``seal a key``.
        tcti: How it was reached.
        error: Its answer.
    """
    code = int(error.rc)
    what = f"the TPM at {tcti!r} could not {action}: {error} (0x{code:x})"
    if code & _LAYER_MASK == _TCTI_LAYER:
        return TpmUnavailableError(
            f"no TPM answers at {tcti!r} (0x{code:x}); see that there is one, that nobody else has "
            "it open, and that `tcti` under [vault] names it",
            tcti=tcti,
            code=hex(code),
        )
    number = _error_number(code)
    if number in _TEMPORARY:
        return TpmUnavailableError(f"{what}; {_TEMPORARY[number]}", tcti=tcti, code=hex(code))
    advice = _ADVICE.get(number, "see what the code means in the TPM 2.0 specification, part 2")
    return TpmError(f"{what}; {advice}", tcti=tcti, code=hex(code))


@contextmanager
def translated(action: str, tcti: str) -> Iterator[None]:
    """Turn the library's exception of the block into an error of ours.

    Raises:
        TpmUnavailableError: It does not answer, or is busy.
        TpmError: It answered something else.
    """
    try:
        yield
    except TSS2_Exception as error:
        raise tpm_error(action, tcti, error) from error
