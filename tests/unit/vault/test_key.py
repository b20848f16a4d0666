"""Keys and what is derived from them, compared with the kernel."""

import hashlib
from collections.abc import Callable

from cas.fsops.encryption_keys import add_key
from cas.model.vault_settings import VaultName
from cas.vault.key import identifier_of, key_digest, master_key, new_key
from tests.support.loopfs import LoopFileSystem
from tests.support.vaults import secret


def test_identifier_computed_here_is_the_kernels(
    loop_ext4: Callable[..., LoopFileSystem],
) -> None:
    """A key can be judged before the kernel has it."""
    place = loop_ext4(16 * 1024 * 1024, "encrypt").path
    with new_key() as key, master_key(key, VaultName.VAULT) as master:
        assert identifier_of(master) == add_key(place, master)


def test_vaults_with_the_same_key_have_different_master_keys() -> None:
    """So that one opens and locks without the other; and always the same ones."""
    with new_key() as key:
        identifiers = []
        for name in (*VaultName, *VaultName):
            with master_key(key, name) as master:
                identifiers.append(identifier_of(master))
    assert identifiers[0] != identifiers[1]
    assert identifiers[:2] == identifiers[2:]


def test_derivation_is_what_it_was_in_version_1() -> None:
    """Vaults in the field open only if this never changes."""
    with secret(bytes(range(32))) as key, master_key(key, VaultName.VAULT) as master:
        assert hashlib.sha256(master.view).hexdigest() == (
            "2e70142d591a2b2743340d732500ac77a4bb2d67c30d34a51b945578c329eca6"
        )
        assert identifier_of(master).hex() == "7272633f0910481898125f9f195429e8"
        assert str(key_digest(key)) == f"sha256:{hashlib.sha256(bytes(range(32))).hexdigest()}"


def test_new_keys_differ() -> None:
    """Each vault gets a key of its own."""
    with new_key() as one, new_key() as other:
        assert key_digest(one) != key_digest(other)
        assert one.size == 32
