"""Callers of the service who do something at random, and remember what they were promised.

Every caller has images, volumes and blobs of its own, whose content they share, so that each knows
what must be there while all get into each other's way below.
"""

__all__ = ["Caller", "campaign_scenario"]

import random
import threading
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cas.errors import (
    CasError,
    ConflictError,
    InterruptedOperationError,
    NotFoundError,
    UnavailableError,
)
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.volume_name import VolumeName
from cas.rpc.client import Client
from cas.store.prune.selection import parse_selection
from tests.support.crash_scenario import Promises, Scenario, build_scenario
from tests.support.stores import utc_now

_Action = Callable[[Client], None]

_CALL_SECONDS = 300.0
"""Far more than any call of the campaign takes; one that hangs fails it."""
_PAUSE_SECONDS = 0.05
_SHARE_CANCELLED = 0.1
_BLOBS_PER_CALLER = 3


def campaign_scenario(place: Path, source: random.Random, callers: int) -> list[Scenario]:
    """Make one scenario per caller out of the same archives and files, with names of its own."""
    common = build_scenario(place, source)
    archives = [Path(job[1]) for job in common.jobs if job[0] == "import"]
    scenarios = []
    for number in range(callers):
        own = Scenario()
        for (name, image), archive in zip(common.images.items(), archives, strict=True):
            mine = f"{name}-{number}"
            own.images[mine] = image.named(mine)
            own.trees[mine] = common.trees[name]
            own.jobs.append([mine, str(archive)])
            volume = f"{_uuid(source)}#0"
            own.volumes[volume] = mine
        for _ in range(_BLOBS_PER_CALLER):
            content = source.randbytes(source.choice((5_000, 300_000, 2_000_000)))
            path = place / f"blob-{number}-{len(own.blobs)}"
            path.write_bytes(content)
            own.blobs[str(Digest.of(content))] = path
        scenarios.append(own)
    return scenarios


class Caller(threading.Thread):
    """One caller, until it is told to stop.

    Args:
        number: Of this caller.
        socket: The service's.
        scenario: What it works with.
        seed: Of what it does.
        stop: Ends it.
    """

    def __init__(
        self, number: int, socket: Path, scenario: Scenario, seed: str, stop: threading.Event
    ) -> None:
        super().__init__(name=f"caller-{number}")
        self.scenario = scenario
        self.promises = Promises()
        self.calls = 0
        self.done = 0
        self.problems: list[str] = []
        self._socket = socket
        self._source = random.Random(seed)
        self._stop_asked = stop
        self._client: Client | None = None
        self._actions: list[_Action] = [
            *3 * [self._import],
            *4 * [self._prepare],
            *2 * [self._activate],
            self._deactivate,
            *2 * [self._remove_volume],
            self._remove_image,
            *3 * [self._ingest],
            self._remove_blob,
            *2 * [self._read],
            self._look,
            self._prune,
            self._check,
        ]

    def run(self) -> None:
        """Call until the end; whatever is no ordinary failure is a problem."""
        while not self._stop_asked.is_set():
            action = self._source.choice(self._actions)
            try:
                self.calls += 1
                action(self._connected())
                self.done += 1
            except (UnavailableError, ConflictError, NotFoundError, InterruptedOperationError):
                self._stop_asked.wait(_PAUSE_SECONDS)
            except (CasError, AssertionError) as error:
                self.problems.append(f"{action.__name__}: {error!r}\n{traceback.format_exc()}")
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client.connect(self._socket).with_deadline(_CALL_SECONDS)
        return self._client

    def _flag(self) -> Cancellation:
        """A flag that somebody sets now and then while the call runs."""
        flag = Cancellation()
        if self._source.random() < _SHARE_CANCELLED:
            threading.Timer(self._source.uniform(0, 0.3), flag.set).start()
        return flag

    def _import(self, client: Client) -> None:
        name, archive = self._source.choice(self.scenario.jobs)
        client.images.import_archive(Path(archive), name=name, cancel=self._flag())
        self.promises.images.add(name)

    def _remove_image(self, client: Client) -> None:
        name = self._source.choice(sorted(self.scenario.images))
        self.promises.images.discard(name)
        client.images.remove(name)

    def _prepare(self, client: Client) -> None:
        name, image = self._source.choice(sorted(self.scenario.volumes.items()))
        self.promises.hear("preparing", name)
        activate = self._source.random() < 0.5
        client.volumes.prepare(_volume(name), image, activate=activate, cancel=self._flag())
        self.promises.hear("prepared", name)

    def _activate(self, client: Client) -> None:
        status = client.volumes.activate(_volume(self._any_volume()))
        assert status.record is not None

    def _deactivate(self, client: Client) -> None:
        client.volumes.deactivate(_volume(self._any_volume()))

    def _remove_volume(self, client: Client) -> None:
        name = self._any_volume()
        self.promises.hear("removing", name)
        client.volumes.remove(_volume(name))
        self.promises.hear("removed", name)

    def _ingest(self, client: Client) -> None:
        digest, path = self._source.choice(sorted(self.scenario.blobs.items()))
        known = Digest.parse(digest) if self._source.random() < 0.5 else None
        ingested = client.blobs.ingest(path, digest=known, cancel=self._flag())
        assert str(ingested.digest) == digest
        self.promises.blobs.add(digest)

    def _remove_blob(self, client: Client) -> None:
        digest = self._source.choice(sorted(self.scenario.blobs))
        self.promises.blobs.discard(digest)
        client.blobs.remove(Digest.parse(digest))

    def _read(self, client: Client) -> None:
        """What was promised is there, right now, and is what it was."""
        if not self.promises.blobs:
            return
        digest = self._source.choice(sorted(self.promises.blobs))
        try:
            content = b"".join(client.blobs.read(Digest.parse(digest)))
        except NotFoundError as error:
            raise AssertionError(f"acknowledged blob {digest} is missing") from error
        assert content == self.scenario.blobs[digest].read_bytes()

    def _look(self, client: Client) -> None:
        for name in self.promises.images:
            assert client.images.exists(name), f"acknowledged image {name} is missing"
        there = {str(status.name) for status in client.volumes.iter_volumes()}
        for name, wanted in self.promises.volumes.items():
            assert wanted in {None, name in there}, f"volume {name} is there: {name in there}"
        sum(1 for _ in client.blobs.iter_blobs())

    def _prune(self, client: Client) -> None:
        """An image of our own goes unless a volume uses it; and so do leftovers."""
        name = self._source.choice(sorted(self.scenario.images))
        self.promises.images.discard(name)
        selection = parse_selection([f"reference={name}"], now=utc_now())
        client.prune.execute(client.prune.plan(selection))

    def _check(self, client: Client) -> None:
        """Others work meanwhile, but nothing is wrong with what we were promised."""
        with suppress(UnavailableError):
            client.usage.measure()
        volumes = {name for name, there in self.promises.volumes.items() if there}
        promised = self.promises.blobs | self.promises.images | volumes
        wrong = [
            found
            for found in client.check_store().findings
            if not promised.isdisjoint({found.object, *found.images, *found.volumes})
        ]
        assert not wrong, wrong

    def _any_volume(self) -> str:
        return self._source.choice(sorted(self.scenario.volumes))


def _volume(name: str) -> VolumeName:
    return VolumeName.parse(name)


def _uuid(source: random.Random) -> str:
    return str(uuid.UUID(int=source.getrandbits(128), version=4))
