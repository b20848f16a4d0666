"""The service's client made of Node's gRPC libraries; see tests/integration/rpc/node/client.js."""

__all__ = ["Node", "NodeError"]

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google.rpc

_ROOT = Path(__file__).parents[2]
_CLIENT = _ROOT / "tests/integration/rpc/node/client.js"
_SECONDS = 100
_PROTOS = (
    _ROOT / "protos",
    # google/rpc/*.proto come with their Python package.
    Path(next(iter(google.rpc.__path__))).parents[1],
)


@dataclass
class NodeError(Exception):
    """A call that failed, as Node's client saw it.

    Attributes:
        code: As in ``NOT_FOUND``.
        message: For people.
        infos: Each ``google.rpc.ErrorInfo`` among the details.
    """

    code: str
    message: str
    infos: list[dict[str, Any]]

    @property
    def info(self) -> dict[str, Any]:
        """The one that there has to be."""
        [info] = self.infos
        return info


class Node:
    """Runs cases of the client against one service.

    Args:
        socket: Where the service listens.
    """

    def __init__(self, socket: Path) -> None:
        if not (_CLIENT.parent / "node_modules").is_dir():
            message = f"{_CLIENT.parent} has no node_modules; run hack/install"
            raise RuntimeError(message)
        self._given = {"socket": str(socket), "protos": list(map(str, _PROTOS))}

    def run(self, case: str, **given: object) -> Any:
        """Give the result of a case.

        Raises:
            NodeError: Its call failed.
        """
        with self.started(case, **given) as process:
            out, err = process.communicate(timeout=_SECONDS)
        assert process.returncode == 0, err
        outcome = json.loads(out)
        if "error" in outcome:
            raise NodeError(**outcome["error"])
        return outcome.get("result")

    @contextmanager
    def started(self, case: str, **given: object) -> Iterator[subprocess.Popen[str]]:
        """Begin a case, and kill it at the end of the context if it still runs."""
        text = json.dumps({**self._given, **given})
        with subprocess.Popen(
            ["node", _CLIENT, case, text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
