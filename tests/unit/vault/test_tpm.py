"""Keys in a TPM: sealed, given again, kept back; and TPMs that are of no help."""

import threading
from collections.abc import Iterator

import msgspec
import pytest

from cas.errors import PcrMismatchError, SealedKeyError, TpmError, TpmUnavailableError
from cas.fsops.secrets import Secret
from cas.model.pcrs import DEFAULT_PCRS
from cas.vault.key import new_key
from cas.vault.sealed_key import KeyFileSealing, TpmSealing
from cas.vault.tpm import TpmProvider
from tests.support.daemon import persist_directory
from tests.support.swtpm import SoftwareTpm
from tests.support.vaults import PCRS
from tests.support.waiting import wait_for


@pytest.fixture
def key() -> Iterator[Secret]:
    with new_key() as made:
        yield made


@pytest.fixture
def provider(software_tpm: SoftwareTpm) -> TpmProvider:
    return TpmProvider(software_tpm.tcti, PCRS)


def _gives(provider: TpmProvider, sealing: TpmSealing, key: Secret) -> bool:
    with provider.unseal(sealing) as again:
        return again.view == key.view


def test_key_that_was_sealed_comes_back_as_often_as_asked(
    provider: TpmProvider, software_tpm: SoftwareTpm, key: Secret
) -> None:
    """Also after a reboot into the same state; nothing fills the TPM's few slots."""
    sealing = provider.seal(key)
    assert all(_gives(provider, sealing, key) for _ in range(5))
    software_tpm.reboot()
    assert _gives(provider, sealing, key)
    assert provider.changed(sealing) == ()
    assert set(sealing.pcrs) == set(PCRS)
    assert bytes(key.view) not in msgspec.json.encode(sealing)


def test_default_registers_are_more_than_one_answer_holds(
    software_tpm: SoftwareTpm, key: Secret
) -> None:
    """A TPM tells eight at a time."""
    provider = TpmProvider(software_tpm.tcti, DEFAULT_PCRS)
    sealing = provider.seal(key)
    assert tuple(sealing.pcrs) == DEFAULT_PCRS
    assert _gives(provider, sealing, key)
    software_tpm.extend(14, b"other")
    assert provider.changed(sealing) == (14,)


def test_key_stays_sealed_while_registers_differ(
    provider: TpmProvider, software_tpm: SoftwareTpm, key: Secret
) -> None:
    """The refusal names them; others do not matter; a reboot into the old state opens it."""
    sealing = provider.seal(key)
    software_tpm.extend(8, b"not sealed under")
    assert _gives(provider, sealing, key)
    software_tpm.extend(4, b"another loader")
    software_tpm.extend(7, b"another policy")
    with pytest.raises(PcrMismatchError, match="differ: 4, 7") as refusal:
        provider.unseal(sealing)
    assert refusal.value.details["pcrs"] == "4,7"
    assert provider.changed(sealing) == (4, 7)
    software_tpm.reboot()
    assert _gives(provider, sealing, key)


def test_key_without_registers_opens_in_every_state(software_tpm: SoftwareTpm, key: Secret) -> None:
    """On this TPM, and on a machine that measures nothing as well."""
    provider = TpmProvider(software_tpm.tcti)
    sealing = provider.seal(key)
    software_tpm.extend(0, b"other firmware")
    assert sealing.pcrs == {}
    assert _gives(provider, sealing, key)
    software_tpm.reboot(measured=False)
    assert _gives(provider, sealing, key)


def test_key_of_another_or_a_cleared_tpm_is_foreign(
    provider: TpmProvider, software_tpm: SoftwareTpm, key: Secret
) -> None:
    """Told apart from damage before anything is tried."""
    sealing = provider.seal(key)
    with (
        persist_directory() as directory,
        SoftwareTpm(directory / "tpm") as other,
        pytest.raises(SealedKeyError, match="not sealed by the TPM"),
    ):
        TpmProvider(other.tcti, PCRS).unseal(sealing)
    software_tpm.clear()
    with pytest.raises(SealedKeyError, match="cleared"):
        provider.unseal(sealing)
    with pytest.raises(SealedKeyError, match="key-file"):
        provider.unseal(KeyFileSealing(path="/key"))


@pytest.mark.parametrize("part", ["public", "private"])
def test_sealing_that_was_damaged_is_refused_as_such(
    provider: TpmProvider, key: Secret, part: str
) -> None:
    """Cut, lengthened, or with a flipped bit anywhere; the TPM is none the worse."""
    sealing = provider.seal(key)
    whole: bytes = getattr(sealing, part)
    flips = [
        bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in range(0, len(whole), 9)
    ]
    for damaged in (whole[:1], whole[: len(whole) // 2], whole[:-1], bytes(200), *flips):
        with pytest.raises(SealedKeyError):
            provider.unseal(msgspec.structs.replace(sealing, **{part: damaged}))
    assert _gives(provider, sealing, key)


def test_sealing_of_another_length_is_refused(
    provider: TpmProvider, software_tpm: SoftwareTpm
) -> None:
    """Whatever else was sealed there is no vault's key."""
    with Secret(16) as short:
        sealing = provider.seal(short)
    with pytest.raises(SealedKeyError):
        provider.unseal(sealing)


def test_exchanged_note_of_registers_opens_nothing(
    provider: TpmProvider, software_tpm: SoftwareTpm, key: Secret
) -> None:
    """The file lies in the open; the policy lies in what the TPM checks."""
    sealing = provider.seal(key)
    software_tpm.extend(7, b"another policy")
    for pcrs in ({}, {0: sealing.pcrs[0]}):
        with pytest.raises((SealedKeyError, PcrMismatchError)):
            provider.unseal(msgspec.structs.replace(sealing, pcrs=pcrs))


def test_machine_that_measures_nothing_seals_nothing_under_registers(
    provider: TpmProvider, software_tpm: SoftwareTpm, key: Secret
) -> None:
    """Such a key would open for any system."""
    software_tpm.reboot(measured=False)
    with pytest.raises(TpmError, match="PCR 0 is zero"):
        provider.seal(key)


def test_tpm_in_lockout_still_gives_keys(
    provider: TpmProvider, software_tpm: SoftwareTpm, key: Secret
) -> None:
    """Failed authorisations of others lock nobody out of the vault."""
    sealing = provider.seal(key)
    software_tpm.lock_out()
    assert _gives(provider, sealing, key)
    assert _gives(provider, provider.seal(key), key)


def test_tpm_whose_owner_has_a_password_says_so(
    provider: TpmProvider, software_tpm: SoftwareTpm, key: Secret
) -> None:
    """The storage key is the owner's."""
    software_tpm.set_owner_password("secret")
    with pytest.raises(TpmError, match="owner hierarchy has a password"):
        provider.seal(key)


@pytest.mark.parametrize("tcti", ["swtpm:path=/nonexistent", "device:/dev/null", "no-such-tcti"])
def test_tpm_that_is_absent_is_unavailable(tcti: str, key: Secret) -> None:
    """The message names how it was looked for."""
    provider = TpmProvider(tcti, PCRS)
    sealing = TpmSealing(parent="", public=b"x", private=b"x", pcrs={})
    for ask in (lambda: provider.seal(key), lambda: provider.unseal(sealing)):
        with pytest.raises(TpmUnavailableError, match=tcti.replace("/", ".")):
            ask()


def test_tpm_that_does_not_answer_is_given_up(software_tpm: SoftwareTpm, key: Secret) -> None:
    """After a bounded time; it is fine again when it answers."""
    sealing = TpmProvider(software_tpm.tcti, PCRS).seal(key)
    hurried = TpmProvider(software_tpm.tcti, PCRS, wait_seconds=0.05)
    with software_tpm.silent(), pytest.raises(TpmUnavailableError, match=r"within 0\.05 s"):
        hurried.unseal(sealing)
    wait_for(lambda: all(thread.name != "deadline" for thread in threading.enumerate()))
    assert _gives(TpmProvider(software_tpm.tcti, PCRS), sealing, key)


def test_tpm_whose_slots_are_taken_is_busy(
    provider: TpmProvider, software_tpm: SoftwareTpm, key: Secret
) -> None:
    """Programs without a resource manager leave objects behind."""
    with software_tpm.filled(), pytest.raises(TpmUnavailableError, match="resource manager"):
        provider.seal(key)
    provider.seal(key)
