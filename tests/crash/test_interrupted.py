"""Ctrl-C at random moments of every command that changes the store."""

import random
import signal
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cas.app import Case
from cas.model.settings import Settings
from tests.support.command import Cas, CasProcess, write_configuration
from tests.support.crash_store import recover
from tests.support.operations import Workshop

_EXIT_INTERRUPTED = 130, -signal.SIGINT
"""The second where the command had ended already and the interpreter had not; a shell shows both
as 130."""
_MIB = 1024 * 1024
_MOMENTS = ((0, 8), (8, 30))
"""Numbers of calls to containerd: of the first half of a command, and of the second."""


def _prune(shop: Workshop) -> list[object]:
    shop.imported()
    return ["prune", "--force"]


COMMANDS: Mapping[str, Callable[[Workshop], list[object]]] = {
    "ingest": lambda shop: ["blob", "ingest", shop.file(8 * _MIB)],
    "ingest of several": lambda shop: ["blob", "ingest", *(shop.file(8192) for _ in range(30))],
    "import": lambda shop: ["image", "import", shop.archive()],
    "tag": lambda shop: ["image", "tag", shop.imported(), f"{uuid.uuid4().hex}:1"],
    "prepare": lambda shop: [
        "volume", "prepare", f"{uuid.uuid4()}#0", "--image", shop.imported(), "--activate",
    ],
    "removal of a volume": lambda shop: ["volume", "rm", "--ignore", shop.prepared()],
    "removal of an image": lambda shop: ["image", "rm", "--ignore", shop.imported()],
    "prune": _prune,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command_that_is_interrupted_is_done_or_undone_and_can_be_repeated(
    command: str,
    crash_seed: int,
    settings: Settings,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It ends with its documented status and no traceback; nothing that is whole only in part."""
    source = random.Random(f"{crash_seed}-{command}")
    config, run = write_configuration(tmp_path, settings), Cas(settings, tmp_path, capfd)
    with Case.open(settings) as case:
        shop = Workshop(case, tmp_path)
        for first, last in _MOMENTS:
            arguments = COMMANDS[command](shop)
            with CasProcess(config, *arguments) as process:
                process.wait_for_calls(source.randrange(first, last) + 1)
                process.interrupt()
                process.result().assert_orderly(0, *_EXIT_INTERRUPTED)
            assert [found for found in case.check.run() if not found.fixable] == []
            run(*arguments).assert_orderly(0)
            assert recover(case) == []
        case.volumes.deactivate_all()
