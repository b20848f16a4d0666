"""Leases on a real containerd: owners, renewal, reaping."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cas.containerd.client import Containerd
from cas.errors import DaemonUnavailableError, LeaseNotFoundError
from cas.fsops.processes import ProcessIdentity
from cas.model.digest import Digest
from cas.model.labels import GC_EXPIRE, LEASE_PID, LEASE_PURPOSE
from cas.model.records import LeaseID, LeaseInfo, LeaseResource
from cas.model.settings import Settings
from cas.store.backing import Backing
from cas.store.leasing import LIFETIME, Lease, Leasing, lease_owner
from cas.store.ports import LeaseStore
from tests.support.daemon import WAIT_SECONDS
from tests.support.stores import ShiftedClock, backing_for, is_stored, random_bytes

QUARTER = LIFETIME / 4


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
def backing(containerd: Containerd, settings: Settings, clock: ShiftedClock) -> Backing:
    return backing_for(containerd, settings, clock=clock)


def lease_ids(backing: Backing) -> set[LeaseID]:
    return {info.id for info in backing.leases.iter_leases()}


def put(backing: Backing, lease: LeaseID) -> Digest:
    data = random_bytes(100)
    backing.content.put(f"r-{Digest.of(data).hex}", lease, data, Digest.of(data), {})
    return Digest.of(data)


def dead(identity: ProcessIdentity) -> ProcessIdentity:
    """The same process id in this boot, started at another time."""
    return replace(identity, start_time=identity.start_time + 1)


def test_lease_names_its_owner_purpose_and_expiry(backing: Backing, clock: ShiftedClock) -> None:
    """Anybody who lists leases sees whose they are and when they end by themselves."""
    with Leasing(backing).hold("import") as lease:
        [info] = backing.leases.iter_leases()
        assert info.id == lease.id
        assert lease_owner(info.labels) == backing.identity
        assert info.labels[LEASE_PURPOSE] == "import"
        assert abs(expiry_of(info.labels) - clock() - LIFETIME) < timedelta(minutes=5)


def test_lease_ends_with_its_context_also_after_an_error(backing: Backing) -> None:
    """Nothing stays, and the error comes out as it was."""
    with pytest.raises(KeyboardInterrupt), Leasing(backing).hold("test"):
        raise KeyboardInterrupt
    assert lease_ids(backing) == set()


def test_lease_released_cannot_be_used(backing: Backing) -> None:
    """Who kept a lease longer than its context gets an error, not an unleased write."""
    with Leasing(backing).hold("test") as lease:
        pass
    lease.release()
    lease.keep_alive()
    with pytest.raises(LeaseNotFoundError):
        _ = lease.id
    with pytest.raises(LeaseNotFoundError):
        lease.pin_blob(Digest.of(b""))


def test_lease_that_cannot_be_released_hides_no_error(backing: Backing) -> None:
    """A lease that stays is reaped later; the work's own outcome counts."""

    class Stubborn:
        def __getattr__(self, name: str) -> object:
            return getattr(backing.leases, name)

        def delete(self, lease: LeaseID, *, sync: bool = False) -> bool:
            raise DaemonUnavailableError("gone")

    stubborn = replace(backing, leases=Stubborn())  # type: ignore[arg-type]
    with Leasing(stubborn).hold("test"):
        pass
    with pytest.raises(ValueError, match="mine"), Leasing(stubborn).hold("test"):
        raise ValueError("mine")


def test_pins_keep_blobs_and_snapshots(backing: Backing) -> None:
    """What is pinned, even before it exists, is the lease's resource."""
    with Leasing(backing).hold("test") as lease:
        lease.pin_blob(Digest.of(b"x"))
        lease.pin_snapshot("name")
        assert set(backing.leases.iter_resources(lease.id)) == {
            LeaseResource("content", str(Digest.of(b"x"))),
            LeaseResource(f"snapshots/{backing.snapshotter}", "name"),
        }


def test_pin_under_a_lost_lease_aborts(backing: Backing) -> None:
    """A vanished lease is an error at the next use."""
    with Leasing(backing).hold("test") as lease:
        backing.leases.delete(lease.id)
        with pytest.raises(LeaseNotFoundError):
            lease.pin_blob(Digest.of(b"x"))


def test_lease_young_is_not_renewed(backing: Backing, clock: ShiftedClock) -> None:
    """Keeping alive costs nothing until a quarter of the lifetime is over."""
    with Leasing(backing).hold("test") as lease:
        first = lease.id
        clock.shift = QUARTER - timedelta(minutes=1)
        lease.keep_alive()
        assert lease_ids(backing) == {first}


def test_lease_renewed_holds_everything_that_all_predecessors_held(
    backing: Backing, clock: ShiftedClock
) -> None:
    """What was written under any older generation, before or after its renewal, stays."""
    with Leasing(backing).hold("test") as lease:
        first = lease.id
        digests = [put(backing, first)]
        for number in range(1, 6):
            clock.shift = QUARTER * number
            lease.keep_alive()
            digests.append(put(backing, lease.id))
            if number == 1:
                digests.append(put(backing, first))  # by a write that began before
        assert len(lease_ids(backing)) <= 4
        assert first not in lease_ids(backing)
        for other in lease_ids(backing) - {lease.id}:
            backing.leases.delete(other)
        backing.leases.collect_garbage()
        assert all(is_stored(backing, digest) for digest in digests)
        [info] = backing.leases.iter_leases()
        assert expiry_of(info.labels) - clock() > LIFETIME - QUARTER
    assert lease_ids(backing) == set()


def test_lease_lost_before_renewal_aborts_and_leaves_no_successor(
    backing: Backing, clock: ShiftedClock
) -> None:
    """What the lost lease held may be gone, so a successor would keep a lie."""
    with Leasing(backing).hold("test") as lease:
        backing.leases.delete(lease.id)
        clock.shift = QUARTER
        with pytest.raises(LeaseNotFoundError):
            lease.keep_alive()
        assert lease_ids(backing) == set()


def test_reaper_deletes_leases_of_the_dead_alone(backing: Backing) -> None:
    """Dead owners' leases go with what they held; living, foreign and unclear ones stay."""
    identity = backing.identity
    kinds = {
        "reused-pid": dead(identity),
        "other-boot": replace(identity, boot_id="00000000-0000-0000-0000-000000000000"),
        "living": identity,
    }
    leases = {
        kind: Lease(replace(backing, identity=owner), "test") for kind, owner in kinds.items()
    }
    backing.leases.create(LeaseID("foreign"), {})
    backing.leases.create(LeaseID("half-ours"), {LEASE_PID: "1"})
    lost = put(backing, leases["reused-pid"].id)
    kept = put(backing, leases["living"].id)
    expected = {leases["reused-pid"].id, leases["other-boot"].id}
    assert set(Leasing(backing).reap()) == expected
    assert lease_ids(backing) == {leases["living"].id, "foreign", "half-ours"}
    assert not is_stored(backing, lost)
    assert is_stored(backing, kept)
    assert Leasing(backing).reap() == []


@pytest.fixture
def foreign_pid_namespace(backing: Backing) -> Iterator[int]:
    """A pid namespace in which somebody lives."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        link = Path(f"/proc/{process.pid}/ns/pid_for_children")
        own = f"pid:[{backing.identity.pid_namespace}]"
        deadline = time.monotonic() + WAIT_SECONDS
        while (text := read_link(link)) in (own, ""):
            assert time.monotonic() < deadline
        yield int(text.removeprefix("pid:[").removesuffix("]"))
        process.stdin.close()


def read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:  # the namespace has no first process yet
        return ""


def test_reaper_leaves_leases_of_a_pid_namespace_that_it_cannot_look_into(
    backing: Backing, foreign_pid_namespace: int
) -> None:
    """A process id means nothing in another namespace; while that lives nobody is certain."""
    elsewhere = replace(dead(backing.identity), pid_namespace=foreign_pid_namespace)
    lease = Lease(replace(backing, identity=elsewhere), "test")
    assert Leasing(backing).reap() == []
    assert lease_ids(backing) == {lease.id}


def expiry_of(labels: Mapping[str, str]) -> datetime:
    return datetime.fromisoformat(labels[GC_EXPIRE])


def test_lease_of_work_that_failed_stays_until_it_ends_well(backing: Backing) -> None:
    """What an interrupted pull had need not come again; done, nothing of it is left."""
    leasing = Leasing(backing)
    with suppress(KeyboardInterrupt), leasing.hold("pull", resumes="work") as lease:
        digest = put(backing, lease.id)
        raise KeyboardInterrupt
    leasing.reap()
    backing.leases.collect_garbage()
    assert is_stored(backing, digest)

    with leasing.hold("pull", resumes="other work"):
        pass
    assert len(lease_ids(backing)) == 1
    with leasing.hold("pull", resumes="work"):
        pass
    assert lease_ids(backing) == set()


def test_lease_of_work_that_failed_without_holding_anything_goes(backing: Backing) -> None:
    """There is nothing to go on with."""
    with pytest.raises(KeyboardInterrupt), Leasing(backing).hold("pull", resumes="work"):
        raise KeyboardInterrupt

    assert lease_ids(backing) == set()


def test_lease_of_killed_work_is_spared_until_its_time_is_over(
    backing: Backing, clock: ShiftedClock
) -> None:
    """A recovery at the start after a reboot comes before the work is taken up again."""
    killed = replace(backing, identity=dead(backing.identity))
    lease = Lease(killed, "pull", "work")
    digest = put(backing, lease.id)

    assert Leasing(backing).reap() == []
    assert is_stored(backing, digest)
    clock.shift = LIFETIME + timedelta(hours=1)
    assert Leasing(backing).reap() == [lease.id]
    assert not is_stored(backing, digest)


class Unheard:
    """Leases of a containerd whose answers to making one get lost.

    Args:
        leases: What it does.
        makes: Whether it makes them all the same.
    """

    def __init__(self, leases: LeaseStore, *, makes: bool) -> None:
        self._leases = leases
        self._makes = makes
        self.asked: list[tuple[LeaseID, Mapping[str, str]]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._leases, name)

    def create(self, lease: LeaseID, labels: Mapping[str, str]) -> LeaseInfo:
        self.asked.append((lease, labels))
        if self._makes:
            self._leases.create(lease, labels)
        raise DaemonUnavailableError("no answer")


@pytest.mark.parametrize("resumes", [None, "work"])
def test_lease_whose_making_was_not_heard_of_is_reaped(
    backing: Backing, resumes: str | None
) -> None:
    """It holds nothing that anybody could go on with; else it would stay for a day."""
    unheard = replace(backing, leases=Unheard(backing.leases, makes=True))  # type: ignore[arg-type]
    with pytest.raises(DaemonUnavailableError), Leasing(unheard).hold("pull", resumes=resumes):
        pass
    [left] = lease_ids(backing)

    leasing = Leasing(backing)
    assert left in leasing.unreleased()
    assert leasing.reap() == [left]
    assert lease_ids(backing) == leasing.unreleased() == set()


def test_lease_that_was_never_made_is_forgotten_at_the_second_reaping(backing: Backing) -> None:
    """At the first its making may be on its way; a service would recover without end for it."""
    unheard = replace(backing, leases=Unheard(backing.leases, makes=False))  # type: ignore[arg-type]
    with pytest.raises(DaemonUnavailableError), Leasing(unheard).hold("pull"):
        pass
    leasing = Leasing(backing)

    assert leasing.reap() == []
    assert len(leasing.unreleased()) == 1
    assert leasing.reap() == []
    assert leasing.unreleased() == set()


def test_lease_that_is_made_when_nobody_waits_for_it_any_more_is_reaped(backing: Backing) -> None:
    """A containerd that froze works off in its own time what it was asked for."""
    late = Unheard(backing.leases, makes=False)
    unheard = replace(backing, leases=late)  # type: ignore[arg-type]
    with pytest.raises(DaemonUnavailableError), Leasing(unheard).hold("pull"):
        pass
    leasing = Leasing(backing)
    for _ in range(3):
        assert leasing.reap() == []

    [(lease, labels)] = late.asked
    backing.leases.create(lease, labels)
    assert leasing.reap() == [lease]
    assert lease_ids(backing) == set()


def test_lease_of_work_to_go_on_with_is_owed_to_nobody(backing: Backing) -> None:
    """A service recovers as long as it owes one, and each recovery takes what downloads left."""
    leasing = Leasing(backing)
    with suppress(KeyboardInterrupt), leasing.hold("pull", resumes="work") as lease:
        put(backing, lease.id)
        raise KeyboardInterrupt

    assert len(lease_ids(backing)) == 1
    assert leasing.unreleased() == set()
