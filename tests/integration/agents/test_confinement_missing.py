"""Agents on a kernel that lacks a part of what confines them."""

import subprocess
import sys
from pathlib import Path

import pytest

from cas.agent.account import find_account
from cas.model.settings import Settings

ROOT = Path(__file__).parents[3]

SCRIPT = """
import errno, sys
sys.path.insert(0, {root!r})
import pyseccomp
from pathlib import Path
from cas.agent.account import Account
from cas.errors import ConfinementError
from tests.support.probe import Probe

kernel = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
for name in {lacking!r}:
    answer = pyseccomp.ERRNO(errno.ENOSYS)
    kernel.add_rule(answer, pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))
kernel.load()
with Probe(Path({directory!r}), {account!r}, require={require}) as probe:
    try:
        print("lacks", *probe.missing(), "and reads", probe.attempt("os.listdir('/')") != "EACCES")
        print("sockets", probe.attempt("socket.socketpair()"))
    except ConfinementError as error:
        print("refused:", error)
"""
LANDLOCK = ("landlock_create_ruleset",)
NAMESPACES = ("unshare",)
SECCOMP = ("seccomp",)


def on_a_kernel_without(*lacking: str, settings: Settings, require: bool) -> str:
    """What a starter of an agent says where these system calls are unknown."""
    script = SCRIPT.format(
        root=str(ROOT),
        lacking=lacking,
        directory=str(settings.layout.verifier),
        account=find_account(settings.owners["verifier"]),
        require=require,
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_agent_without_landlock_says_so_and_keeps_its_other_walls(
    agent_settings: Settings,
) -> None:
    """What permission bits show it can be read then; no socket is to be had all the same."""
    told = on_a_kernel_without(*LANDLOCK, settings=agent_settings, require=False)

    assert told == "lacks landlock and reads True\nsockets EPERM\n"


def test_verifier_without_network_namespaces_has_no_network_by_seccomp(
    agent_settings: Settings,
) -> None:
    """One of the two is enough, so nothing is lacking."""
    told = on_a_kernel_without(*NAMESPACES, settings=agent_settings, require=True)

    assert told == "lacks and reads False\nsockets EPERM\n"


@pytest.mark.parametrize(
    ("lacking", "wall"), [(LANDLOCK, "landlock"), (SECCOMP, "seccomp")], ids=["landlock", "seccomp"]
)
def test_agent_that_lacks_a_required_part_is_refused(
    lacking: tuple[str, ...], wall: str, agent_settings: Settings
) -> None:
    """With the part, and the setting that requires it."""
    told = on_a_kernel_without(*lacking, settings=agent_settings, require=True)

    assert told.startswith(f"refused: the probe lacks {wall}: ")
    assert "require_confinement" in told
