"""Processes of crash tests, forked off one that has imported everything and done nothing.

Starting an interpreter and importing the store takes longer than most of what they do.
"""

__all__ = ["exit_status"]

import multiprocessing
from collections.abc import Callable

_WORKERS = [
    f"tests.support.{name}_worker"
    for name in ("import", "ingest", "merge", "prune", "pull", "volume")
]
_processes = multiprocessing.get_context("forkserver")
# For all of them, whoever is first: once the server runs it imports no more.
_processes.set_forkserver_preload(_WORKERS)


def exit_status(main: Callable[..., None], *arguments: object) -> int:
    """Run ``main`` of a worker to its end, whatever that is; negative if a signal ended it."""
    process = _processes.Process(target=main, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode
