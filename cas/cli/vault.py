"""``cas vault``: one command per use case of :class:`cas.vault.vaults.Vaults`."""

__all__ = ["command"]

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cas.cli.invocation import Invocation, pass_invocation
from cas.cli.lazy import NounGroup, output_options
from cas.cli.output import print_document, timestamp
from cas.errors import CasError, UsageError
from cas.model.settings import ServiceUse, Settings
from cas.model.vault_settings import VaultName

if TYPE_CHECKING:
    from cas.rpc.client.vault import VaultClient
    from cas.vault.vaults import Vaults, VaultStatus

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_VAULT = click.Choice([name.value for name in VaultName])
_log = logging.getLogger(__name__)


@click.group(name="vault", cls=NounGroup)
def command() -> None:
    """The encrypted directories below the persist directory: vault and unsealed-vault.

    They are worked on directly, so that keys pass through no other process; with "cas --service
    always vault ..." through the service, which answers while they are locked.

    \b
    Example:
      cas vault init && cas vault status
    """


def _names(function: _Decorated) -> _Decorated:
    return click.argument("names", nargs=-1, type=_VAULT, metavar="[VAULT]...")(function)


def _one_name(function: _Decorated) -> _Decorated:
    return click.option(
        "--vault",
        "name",
        type=_VAULT,
        default=VaultName.VAULT.value,
        help="Which of them.  [default: vault]",
    )(function)


def _passphrase_file(function: _Decorated) -> _Decorated:
    return click.option(
        "--passphrase-file",
        type=click.Path(path_type=Path, allow_dash=True),
        help="Its first line is the passphrase, with that provider; - is standard input.",
    )(function)


def _chosen(names: tuple[str, ...]) -> tuple[VaultName, ...]:
    return tuple(map(VaultName, names)) or tuple(VaultName)


@contextmanager
def _opened(
    invocation: Invocation, passphrase_file: Path | None = None
) -> "Iterator[Vaults | VaultClient]":
    """Give the use cases, or their client where the service must be used."""
    from cas.cli.secret_input import passphrase_from

    settings = invocation.settings()
    if settings.service is not ServiceUse.ALWAYS:
        yield _direct(settings, passphrase_file)
        return
    from cas.rpc.client.vault import VaultClient

    with ExitStack() as stack:
        passphrase = None
        if passphrase_file is not None:
            passphrase = stack.enter_context(passphrase_from(passphrase_file)())
        client = VaultClient.connect(settings.service_socket, passphrase=passphrase)
        stack.enter_context(client).require_persist(settings.persist)
        yield client


def _direct(settings: Settings, passphrase_file: Path | None = None) -> "Vaults":
    from cas.app import open_vaults
    from cas.cli.secret_input import passphrase_from

    return open_vaults(settings, ask=passphrase_from(passphrase_file))


def _protect_memory() -> None:
    from cas.fsops.secrets import lock_process_memory

    try:
        lock_process_memory()
    except CasError as error:
        _log.warning("memory of libraries may be swapped reason=%s", error)


@command.command()
@_passphrase_file
@output_options
@pass_invocation
def init(invocation: Invocation, passphrase_file: Path | None) -> None:
    """Make the layout with its vaults, encrypted and open; print what they are.

    Who keeps their keys is set under [vault] in the configuration. What exists stays as it is and
    is opened; what was interrupted goes on. Keep a copy of each key elsewhere: see "escrow".

    \b
    Example:
      cas vault init
    """
    _protect_memory()
    with _opened(invocation, passphrase_file) as vaults:
        vaults.init()
        _print_status(invocation, vaults.status())


@command.command()
@_names
@_passphrase_file
@output_options
@pass_invocation
def unlock(invocation: Invocation, names: tuple[str, ...], passphrase_file: Path | None) -> None:
    """Open vaults with the keys that TPM, file or passphrase give; all, unless some are named.

    Exit with 7 if the machine was not started as it was when a key was sealed, naming the PCRs.

    \b
    Example:
      cas vault unlock
    """
    _protect_memory()
    with _opened(invocation, passphrase_file) as vaults:
        vaults.unlock(_chosen(names))


@command.command()
@_names
@click.option(
    "--wait",
    default=30.0,
    metavar="SECONDS",
    show_default=True,
    help="How long containerd, and who else uses a vault, may take to end.",
)
@output_options
@pass_invocation
def lock(invocation: Invocation, names: tuple[str, ...], wait: float) -> None:
    """Deactivate all volumes, stop containerd, take the keys away, see that nothing is readable.

    A containerd that cas supervises stops by itself, and starts when the vault is open again. Exit
    with 4 if somebody uses a vault; it is then not locked, and "status" says what it is.

    \b
    Example:
      cas vault lock
    """
    with _opened(invocation) as vaults:
        vaults.lock(_chosen(names), wait_seconds=wait)


@command.command()
@output_options
@pass_invocation
def status(invocation: Invocation) -> None:
    """Tell what the vaults are, who keeps their keys, and which PCRs differ now.

    JSON: an array of name, path, state (missing, plain, unfinished, open, locked, half-locked),
    encrypted, policy (version, contents, names, padding), provider, sealed, pcr_bank, pcrs,
    differing_pcrs, unlock_method, problem; null for what is not or cannot be told.

    \b
    Example:
      cas vault status --json
    """
    with _opened(invocation) as vaults:
        _print_status(invocation, vaults.status())


@command.command()
@_names
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="The escrowed key, where the old sealing does not open; - is standard input.",
)
@_passphrase_file
@output_options
@pass_invocation
def reseal(
    invocation: Invocation,
    names: tuple[str, ...],
    key_file: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Seal keys anew under the PCRs of now, or by another provider that is configured.

    The old sealing stays until the new one was seen to open. What is open stays open.

    \b
    Example:
      cas vault reseal vault
    """
    from cas.cli.secret_input import read_key

    _protect_memory()
    if key_file is not None and len(names) != 1:
        raise UsageError("--key is the key of one vault; name that")
    with (
        nullcontext() if key_file is None else read_key(key_file) as key,
        _opened(invocation, passphrase_file) as vaults,
    ):
        vaults.reseal(_chosen(names), key)


@command.command()
@click.argument("key_file", type=click.Path(path_type=Path, allow_dash=True))
@_one_name
@click.option("--no-reseal", is_flag=True, help="Leave the sealed key as it is.")
@_passphrase_file
@output_options
@pass_invocation
def recover(
    invocation: Invocation,
    key_file: Path,
    name: str,
    no_reseal: bool,
    passphrase_file: Path | None,
) -> None:
    """Open a vault with its escrowed key, and seal that anew under the PCRs of now.

    KEY_FILE has exactly 32 bytes; - is standard input. The key is compared with its noted sha256
    before it is used. If only the sealing fails, the vault is open and the exit status tells why.

    \b
    Example:
      openssl pkeyutl -decrypt -inkey owner.pem -in key.enc | cas vault recover -
    """
    from cas.cli.secret_input import read_key

    _protect_memory()
    with read_key(key_file) as key, _opened(invocation, passphrase_file) as vaults:
        vaults.recover(VaultName(name), key, reseal=not no_reseal)


@command.command()
@_one_name
@_passphrase_file
@output_options
@pass_invocation
def escrow(invocation: Invocation, name: str, passphrase_file: Path | None) -> None:
    """Write a vault's key, 32 bytes, to standard output, which must be no terminal.

    Whoever has it opens the vault on any machine that holds its disk. Encrypt it before it is
    stored. The service gives no key to anybody, so that this command never asks it.

    \b
    Example:
      cas vault escrow | openssl pkeyutl -encrypt -pubin -inkey owner.pub -out key.enc
    """
    from cas.fsops.descriptors import write_all

    if sys.stdout.isatty():
        raise UsageError("a key is not shown on a terminal; pipe it into what encrypts it")
    _protect_memory()
    with _direct(invocation.settings(), passphrase_file).key(VaultName(name)) as key:
        write_all(sys.stdout.fileno(), key.view)


def _document(vault: "VaultStatus") -> dict[str, object]:
    policy = vault.policy
    return {
        "name": vault.name.value,
        "path": str(vault.path),
        "state": vault.state.value,
        "encrypted": policy is not None,
        "policy": None
        if policy is None
        else {
            "version": policy.version,
            "contents": policy.contents,
            "names": policy.names,
            "padding": policy.padding,
        },
        "provider": vault.provider,
        "sealed": None if vault.sealed is None else timestamp(vault.sealed),
        "pcr_bank": "sha256" if vault.pcrs else None,
        "pcrs": list(vault.pcrs),
        "differing_pcrs": None if vault.differing_pcrs is None else list(vault.differing_pcrs),
        "unlock_method": vault.unlock_method.value,
        "problem": vault.problem,
    }


def _print_status(invocation: Invocation, vaults: "list[VaultStatus]") -> None:
    if invocation.as_json:
        print_document([_document(vault) for vault in vaults])
        return
    for vault in vaults:
        if invocation.quiet:
            click.echo(vault.name.value)
            continue
        click.echo(f"{vault.name.value}: {', '.join(_words(vault))}")
        if vault.problem is not None:
            click.echo(f"  problem: {vault.problem}")


def _words(vault: "VaultStatus") -> list[str]:
    words = [vault.state.value]
    if vault.policy is not None:
        policy = vault.policy
        words.append(f"encrypted (version {policy.version}, {policy.contents}, {policy.names})")
    if vault.provider is not None:
        words.append(f"key kept by {vault.provider}")
    if vault.pcrs:
        words.append(f"sealed under PCRs {_numbers(vault.pcrs)} of sha256")
    if vault.differing_pcrs:
        words.append(f"PCRs that differ now: {_numbers(vault.differing_pcrs)}")
    if vault.state.value == "open":
        words.append(f"opened by {vault.unlock_method.value}")
    return words


def _numbers(pcrs: tuple[int, ...]) -> str:
    return " ".join(map(str, pcrs))
