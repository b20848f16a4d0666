"""Programs that keep credentials, as docker asks them.

For the command line and the service; what a confined process needs travels in its settings.

Source: docker's documentation of the credential helpers' protocol.
"""

__all__ = ["ask_helper"]

import re
import subprocess

import msgspec

from cas.datastores.secret import Secret
from cas.datastores.settings import Credentials
from cas.errors import ConfigError

_HELPER_SECONDS = 60
_HELPER_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_NOT_STORED = b"credentials not found in native keychain"
"""A helper's word for it, fixed by the protocol."""
_TOKEN_USER = "<token>"  # noqa: S105 - the protocol's word


class _Answer(msgspec.Struct):
    username: str = msgspec.field(default="", name="Username")
    secret: str = msgspec.field(default="", name="Secret")


def ask_helper(name: str, key: str) -> Credentials:
    """Ask for what is stored under a key; empty credentials if nothing is.

    Args:
        name: What comes after ``docker-credential-`` in the program's name.
        key: A registry or URL, as it was stored.

    Raises:
        ConfigError: The name is none, or the helper fails. The message quotes no answer.
    """
    if _HELPER_NAME.fullmatch(name) is None:
        raise ConfigError(f"{name[:100]!r} is no name of a credential helper")
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=key.encode(),
            capture_output=True,
            timeout=_HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"the credential helper {program} cannot be run, or does not end"
        raise ConfigError(message) from error
    if done.returncode != 0:
        if done.stdout.strip() == _NOT_STORED:
            return Credentials()
        raise ConfigError(f"the credential helper {program} failed with status {done.returncode}")
    try:
        answer = msgspec.json.decode(done.stdout, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the credential helper {program} gave an answer of its own") from error
    if answer.username == _TOKEN_USER:
        return Credentials(identity_token=Secret(answer.secret))
    return Credentials(username=answer.username, password=Secret(answer.secret))
