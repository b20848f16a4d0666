"""Running the command in this process, as a shell would."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cas.cli.main import main
from cas.model.limits import Limits
from cas.model.settings import ServiceUse, Settings
from tests.support.command import write_configuration
from tests.support.service_host import ServiceHost


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


@pytest.fixture(scope="session")
def service_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceHost]:
    """A process that serves stores of tests."""
    with ServiceHost(tmp_path_factory.mktemp("service") / "log") as host:
        yield host


@pytest.fixture
def limits() -> Limits:
    """Of the store, whoever opens it; tests may choose their own."""
    return Limits()


@pytest.fixture(params=[ServiceUse.NEVER, ServiceUse.ALWAYS], ids=["direct", "service"])
def reached(
    request: pytest.FixtureRequest, settings: Settings, limits: Limits, service_host: ServiceHost
) -> Iterator[Settings]:
    """The store of this test, to be opened by commands, and once more through its service."""
    chosen = replace(
        settings,
        service=request.param,
        service_address=settings.layout.run / f"{settings.namespace}.sock",
        limits=limits,
    )
    if chosen.service is ServiceUse.NEVER:
        yield chosen
        return
    with service_host.serving(chosen):
        yield chosen


@pytest.fixture
def cas(run_cas: RunCas, reached: Settings, tmp_path: Path) -> RunCas:
    """Call the command on the store of this test, directly and once more through its service."""
    settings = reached
    config = write_configuration(tmp_path, settings)
    # Who comes first would be warned of the plain vault, which is not what is tested here.
    settings.layout.plain_vault_warned.touch()

    def run(*arguments: object) -> Result:
        return run_cas(
            "--config", config,
            "--service", settings.service,
            "--service-address", settings.service_socket,
            *arguments,
        )  # fmt: skip

    return run
