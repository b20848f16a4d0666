"""An agent that tries whatever a test tells it, confined like a real one.

A request is Python; the answer is its value as text, or the name of the errno that it met.
"""

import ctypes
import encodings.idna  # noqa: F401 - needed by name look-ups, and not to be had later
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pyseccomp

from cas.agent.serving import CallContext, Confinable
from cas.errors import BlobNotFoundError


class Options(msgspec.Struct):
    network: bool = False
    file_bytes: int = 4096
    fail: str = ""
    hang: bool = False


class Attempt(msgspec.Struct):
    code: str


class Outcome(msgspec.Struct):
    value: str


def syscall(name: str, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    result = int(library.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "system call failed")
    return result


HANGS = "hangs"
"""File that an agent makes that will never be ready."""
PR_GET_DUMPABLE = 3

TOOLS = {
    "BlobNotFoundError": BlobNotFoundError,
    "Path": Path,
    "os": os,
    "signal": signal,
    "socket": socket,
    "struct": struct,
    "subprocess": subprocess,
    "sys": sys,
    "syscall": syscall,
    "threading": threading,
    "time": time,
}


def attempt(request: bytes, context: CallContext) -> Outcome:
    tools = {**TOOLS, "context": context}
    code = msgspec.json.decode(request, type=Attempt).code
    try:
        if "\n" in code:
            exec(code, tools)
            return Outcome(str(tools.get("value")))
        return Outcome(str(eval(code, tools)))
    except OSError as error:
        return Outcome(errno.errorcode.get(error.errno or 0, repr(error)))
    except ImportError as error:
        return Outcome(repr(error))


def prepare(raw: bytes) -> Confinable:
    options = msgspec.json.decode(raw, type=Options)
    if options.fail:
        raise BlobNotFoundError(options.fail, asked="for")
    if options.hang:
        Path(HANGS).touch()
        time.sleep(3600)
    TOOLS["dumpable_when_told"] = syscall("prctl", PR_GET_DUMPABLE, 0, 0, 0, 0)
    return Confinable(attempt, network=options.network, file_bytes=options.file_bytes)
