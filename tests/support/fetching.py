"""Fetching one object in a test, without waiting for pauses."""

__all__ = ["BODY", "MIB", "FakeTime", "Fetching"]

from dataclasses import dataclass, field
from pathlib import Path

from cas.datastores.fetch import Fetched, fetch
from cas.datastores.opening import open_source
from cas.datastores.retry import Pace, RetryPolicy
from cas.datastores.room import NO_LEDGER, Room
from cas.datastores.settings import SourceSettings, TransportSettings
from cas.datastores.terms import FetchPolicy, Terms, Wanted
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.progress import NO_PROGRESS, Progress

MIB = 1024 * 1024
BODY = bytes(range(256)) * 4096 * 3  # 3 MiB


class FakeTime:
    """A clock that only pauses move, unless ``tick`` is set: then each look does.

    A pause sets the flag ``cancels``, if there is one.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.tick = 0.0
        self.pauses: list[float] = []
        self.cancels: Cancellation | None = None

    def sleep(self, seconds: float, _: Cancellation | None) -> None:
        """Pause."""
        self.pauses.append(seconds)
        self.now += seconds
        if self.cancels is not None:
            self.cancels.set()

    def monotonic(self) -> float:
        """Look."""
        self.now += self.tick
        return self.now


@dataclass
class Fetching:
    """Fetches the object ``BODY`` (so its name claims) into ``directory/file``."""

    directory: Path
    time: FakeTime = field(default_factory=FakeTime)
    policy: FetchPolicy = field(
        default_factory=lambda: FetchPolicy(
            retry=RetryPolicy(attempts=4), progress_bytes=64 * 1024, sync_bytes=MIB // 2
        )
    )
    cancellation: Cancellation = field(default_factory=Cancellation)
    progress: Progress = NO_PROGRESS
    room: Room = NO_LEDGER
    idle_seconds: float = 60.0

    @property
    def file(self) -> Path:
        """The destination."""
        return self.directory / "file"

    def names(self) -> list[str]:
        """What is in the directory."""
        return sorted(path.name for path in self.directory.iterdir())

    def settings(self, url: str) -> SourceSettings:
        """Settings for one URL."""
        transport = TransportSettings(idle_seconds=self.idle_seconds)
        return SourceSettings(url=url, transport=transport)

    def __call__(
        self,
        where: str | SourceSettings,
        *,
        path: str = "blob",
        size: int | None = None,
        max_bytes: int = 64 * MIB,
    ) -> Fetched:
        """Fetch from a URL, or by settings."""
        settings = self.settings(where) if isinstance(where, str) else where
        wanted = Wanted(path=path, digest=Digest.of(BODY), size=size, max_bytes=max_bytes)
        terms = Terms(
            policy=self.policy,
            pace=Pace(self.time.sleep, self.time.monotonic),
            cancellation=self.cancellation,
            progress=self.progress,
            room=self.room,
        )
        with open_source(settings) as source:
            return fetch(source, wanted, self.file, terms)
