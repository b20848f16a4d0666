"""The command before it can do anything, and when it has done all."""

import subprocess
import sys

import pytest

_LOADING = "import cas.__main__, os, signal; os.kill(os.getpid(), signal.SIGINT)"
_DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"


@pytest.mark.parametrize(("before", "status"), [("", 130), (_DEAF, 0)])
def test_interrupt_while_the_command_loads_ends_it_without_a_word(before: str, status: int) -> None:
    """As later on, with 130; a background job, which is deaf to it, goes on."""
    restored = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{before or restored}{_LOADING}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_interrupt_while_the_interpreter_ends_is_no_traceback(number: str) -> None:
    """The command has had its last word; all that is left is to leave."""
    code = (
        "import atexit, os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from cas.__main__ import main\n"
        f"atexit.register(lambda: os.kill(os.getpid(), signal.{number}))\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (130, "")
    assert "Usage: " in done.stdout
