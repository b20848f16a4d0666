"""Running the command in this process, as a shell would."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cas.cli.main import main
from cas.model.settings import Settings


@dataclass(frozen=True)
class Result:
    """What a call of the command left."""

    status: int
    out: str
    err: str


RunCas = Callable[..., Result]


@pytest.fixture
def run_cas(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> RunCas:
    """Call the command with arguments; the environment holds no settings."""
    for name in ("CAS_PERSIST", "CAS_ADDRESS", "CAS_NAMESPACE", "CAS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    monkeypatch.setenv("CAS_CONFIG", str(empty))

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def cas(run_cas: RunCas, settings: Settings, tmp_path: Path) -> RunCas:
    """Call the command on the store of this test."""
    config = tmp_path / "config.toml"
    owners = "".join(f'{role} = "{name}"\n' for role, name in settings.owners.items())
    config.write_text(f"[owners]\n{owners}")
    # Who comes first would be warned of the plain vault, which is not what is tested here.
    settings.layout.plain_vault_warned.touch()

    def run(*arguments: object) -> Result:
        return run_cas(
            "--config", config,
            "--persist", settings.persist,
            "--address", settings.socket,
            "--namespace", settings.namespace,
            *arguments,
        )  # fmt: skip

    return run
