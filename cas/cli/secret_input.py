"""Keys and passphrases on their way in: from files, standard input, a terminal; no arguments."""

__all__ = ["passphrase_from", "read_key"]

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from cas.errors import KeyMismatchError, SizeMismatchError, UsageError
from cas.fsops.secrets import Secret
from cas.fsops.translation import translated

_STDIN = Path("-")
_KEY_BYTES = 32
_LONGEST_PASSPHRASE = 1024


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, str]]:
    if path == _STDIN:
        yield sys.stdin.fileno(), "standard input"
        return
    with translated("read", path, source=True):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor, repr(str(path))
    finally:
        os.close(descriptor)


def read_key(path: Path) -> Secret:
    """Read a key of exactly 32 bytes; ``-`` is standard input. The caller closes it.

    Raises:
        KeyMismatchError: It has another length.
        SourceNotFoundError: There is no such file.
        StorageError: A read failed.
    """
    with _opened(path) as (descriptor, what):
        try:
            return Secret.read_from(descriptor, _KEY_BYTES, what=what)
        except SizeMismatchError as error:
            raise KeyMismatchError(error.message) from error


def passphrase_from(path: Path | None) -> Callable[[], Secret]:
    """Give what asks for a passphrase: the first line of a file, or else a person at a terminal.

    Whatever is asked for twice is read once, since standard input cannot be read again.
    """
    kept: list[bytes] = []

    def ask() -> Secret:
        if not kept:
            kept.append(_prompted() if path is None else _first_line(path))
        secret = Secret(len(kept[0]))
        secret.view[:] = kept[0]
        return secret

    return ask


def _first_line(path: Path) -> bytes:
    with _opened(path) as (descriptor, what):
        raw = os.read(descriptor, _LONGEST_PASSPHRASE + 1)
    line = raw.splitlines()[0] if raw else b""
    return _checked(line, what)


def _prompted() -> bytes:
    if not sys.stdin.isatty():
        raise UsageError("a passphrase is needed and there is no terminal; give --passphrase-file")
    text = click.prompt("passphrase", hide_input=True, err=True)
    return _checked(str(text).encode(), "the passphrase")


def _checked(line: bytes, what: str) -> bytes:
    if not 0 < len(line) <= _LONGEST_PASSPHRASE:
        raise UsageError(f"{what} has no passphrase of 1 to {_LONGEST_PASSPHRASE} bytes")
    return line
