"""Leases: what keeps content alive between its first byte and the reference to it.

Functions that write take a :class:`Lease`, so that writing without one cannot be expressed. A
lease names its owner (boot, process, start time) in labels and expires a day after its making, so
that a killed process pins nothing for ever; only leases of owners that are certainly dead are
reaped, and those that this process could not release because containerd was away. containerd
cannot extend a lease: :meth:`Lease.keep_alive` makes a successor instead.
"""

__all__ = ["LIFETIME", "Lease", "Leasing", "is_abandoned", "is_resumable", "lease_owner"]

import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cas.errors import CasError, InvalidNameError, LeaseNotFoundError
from cas.fsops.processes import ProcessIdentity, is_dead
from cas.model import labels
from cas.model.cancellation import while_wanted
from cas.model.digest import Digest
from cas.model.records import LeaseID, LeaseInfo, LeaseResource
from cas.model.sizes import parse_instant
from cas.store.backing import Backing

_log = logging.getLogger(__name__)

LIFETIME = timedelta(hours=24)
"""From making to expiry; far above the longest single write, see ``_SUPERSEDED``."""
_RENEWAL = LIFETIME / 4
_SUPERSEDED = LIFETIME * 3 / 4
"""Age at which a predecessor is dropped: what still uses it then fails loudly, before expiry
would make its new resources vanish silently."""

_Place = tuple[Path, str]
"""A store: containerd's root and the namespace."""

_unreleased: dict[LeaseID, _Place] = {}
"""Leases of this process that no work holds any more and that may still exist: making or deleting
them failed. Their owner lives, so that nobody else can tell."""

_doubtful: dict[LeaseID, None] = {}
"""Leases of this process that reapings looked for in vain: nobody waits for them any more, but a
containerd that was asked to make them while it was busy may yet do so. The newest ones only; the
others expire by themselves."""
_MOST_DOUBTFUL = 1024

_interrupted: set[LeaseID] = set()
"""Leases of this process that no work holds any more and that wait for whoever goes on with it."""


@dataclass(frozen=True, slots=True)
class _Generation:
    id: LeaseID
    created: datetime


class Lease:
    """A live lease and its successors; safe to use from several threads.

    Read :attr:`id` at each call to containerd, since it changes when the lease is renewed. Made by
    :meth:`Leasing.hold` only.
    """

    def __init__(self, backing: Backing, purpose: str, resumes: str | None = None) -> None:
        self._backing = backing
        self._purpose = purpose
        self._resumes = resumes
        self._guard = threading.Lock()
        self._generations: list[_Generation] = []
        self._generations.append(self._create())

    @property
    def id(self) -> LeaseID:
        """The newest generation's id.

        Raises:
            LeaseNotFoundError: The lease was released.
        """
        generations = self._generations
        if not generations:
            raise LeaseNotFoundError(f"the lease for {self._purpose} was released already")
        return generations[-1].id

    def pin_blob(self, digest: Digest) -> None:
        """Keep a blob while the lease lives; the blob need not exist. Idempotent.

        Pin first, then look whether it exists: what exists then stays.

        Raises:
            LeaseNotFoundError: The lease is gone; abort.
        """
        self._pin(LeaseResource("content", str(digest)))

    def pin_snapshot(self, name: str) -> None:
        """Keep a snapshot and its parents while the lease lives. Idempotent.

        Raises:
            LeaseNotFoundError: The lease is gone; abort.
        """
        self._pin(LeaseResource(f"snapshots/{self._backing.snapshotter}", name))

    def keep_alive(self) -> None:
        """Renew the lease if it is due; call it now and then in long work, it is cheap.

        After a quarter of the lifetime a successor takes over everything that the predecessors
        hold; they live on for a while, since writes that name them may be under way.

        Raises:
            LeaseNotFoundError: The lease is gone; abort.
        """
        with self._guard:
            if self._generations and self._age(self._generations[-1]) >= _RENEWAL:
                self._renew()

    def release(self) -> None:
        """Drop all generations. May be called twice; a failure is logged, the reaper does it."""
        with self._guard:
            while self._generations:
                generation = self._generations.pop()
                self._owe(generation.id)
                try:
                    self._backing.leases.delete(generation.id)
                except CasError as error:
                    _log.warning("lease not released lease=%s error=%s", generation.id, error)
                else:
                    _forget(generation.id)

    def abandon(self) -> None:
        """Leave what it holds to whoever goes on with the work; one that holds nothing goes.

        Nobody may use it afterwards. It ends by its expiry, by a prune, or when the work is done.
        """
        if not any(self._resources()):
            self.release()
            return
        with self._guard:
            _interrupted.update(generation.id for generation in self._generations)
            self._generations.clear()

    def _owe(self, lease_id: LeaseID) -> None:
        _unreleased[lease_id] = _place(self._backing)

    def _resources(self) -> Iterator[LeaseResource]:
        with suppress(CasError):
            yield from self._backing.leases.iter_resources(self.id)

    def _pin(self, resource: LeaseResource) -> None:
        with self._guard:
            self._backing.leases.add_resource(self.id, resource)

    def _age(self, generation: _Generation) -> timedelta:
        return self._backing.clock() - generation.created

    def _create(self) -> _Generation:
        now = self._backing.clock()
        lease_id = LeaseID(f"cas-{self._purpose}-{secrets.token_hex(8)}")
        marks = {
            **_owner_labels(self._backing.identity),
            labels.LEASE_PURPOSE: self._purpose,
            labels.GC_EXPIRE: _rfc3339(now + LIFETIME),
        }
        if self._resumes is not None:
            marks[labels.LEASE_RESUMES] = self._resumes
        try:
            self._backing.leases.create(lease_id, marks)
        except BaseException:
            self._owe(lease_id)  # it may have been made all the same
            raise
        return _Generation(lease_id, now)

    def _renew(self) -> None:
        successor = self._create()
        try:
            for predecessor in self._generations:
                self._inherit(successor.id, predecessor.id)
        except BaseException:
            with suppress(CasError):
                self._backing.leases.delete(successor.id)
            raise
        # What the predecessor gains from here on is inherited by the next successor.
        self._generations.append(successor)
        self._drop_superseded()
        _log.info("lease renewed lease=%s purpose=%s", successor.id, self._purpose)

    def _drop_superseded(self) -> None:
        for predecessor in self._generations[:-1]:
            if self._age(predecessor) >= _SUPERSEDED:
                self._backing.leases.delete(predecessor.id)
                self._generations.remove(predecessor)

    def _inherit(self, successor: LeaseID, predecessor: LeaseID) -> None:
        for resource in self._backing.leases.iter_resources(predecessor):
            self._backing.leases.add_resource(successor, resource)


class Leasing:
    """Makes and reaps leases of one store."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._missed: frozenset[LeaseID] = frozenset()

    @contextmanager
    def hold(self, purpose: str, *, resumes: str | None = None) -> Iterator[Lease]:
        """Hold a lease for the time of the context; only where the vault may be written.

        Args:
            purpose: One word of lower-case letters, shown to people who list leases.
            resumes: Names the work, if it is gone on with after an interruption. What the lease
                holds then stays for up to a day when the context ends with an error or the process
                dies, unless a prune takes it, and until work of the same name ends well.

        Whatever the lease alone kept may be collected once the context ends, so references to it
        are made inside.
        """
        self._backing.check_writable()
        lease = Lease(self._backing, purpose, resumes)
        done = False
        try:
            yield lease
            done = True
        finally:
            if done or resumes is None:
                lease.release()
            else:
                lease.abandon()
        if resumes is not None:
            self._end_interrupted(resumes)

    def _end_interrupted(self, work: str) -> None:
        """Drop what earlier attempts at the same work have left."""
        for info in list(self._backing.leases.iter_leases()):
            if info.labels.get(labels.LEASE_RESUMES) == work and is_abandoned(info):
                self._backing.leases.delete(info.id)
                _forget(info.id)

    def unreleased(self) -> frozenset[LeaseID]:
        """Leases that this process no longer needs and has not released, or not yet.

        Those that wait for whoever goes on with interrupted work are not among them.
        """
        place = _place(self._backing)
        return frozenset(lease for lease, where in _unreleased.copy().items() if where == place)

    def reap(self) -> list[LeaseID]:
        """Delete leases of ours that are abandoned, then collect once if any was.

        Leases of others, of live processes, and of processes that cannot be judged from here
        (another PID namespace) are left alone, and until their expiry those that hold something of
        work that can be gone on with. Idempotent.

        Returns:
            What was deleted.

        Raises:
            InterruptedOperationError: The operation that this belongs to was stopped; the rest is
                left to the next time.
        """
        reaped: list[LeaseID] = []
        owed = self.unreleased()
        found = list(self._backing.leases.iter_leases())
        for lease in while_wanted(found):
            if not is_abandoned(lease) or self._may_be_resumed(lease):
                continue
            if self._backing.leases.delete(lease.id):
                _log.info("abandoned lease reaped lease=%s", lease.id)
                _forget(lease.id)
                reaped.append(lease.id)
        self._settle(owed - {lease.id for lease in found})
        if reaped:
            self._backing.leases.collect_garbage()
        return reaped

    def _may_be_resumed(self, info: LeaseInfo) -> bool:
        """Whether there is something to go on with: not if the answer to its making was lost."""
        if not is_resumable(info, self._backing.clock()):
            return False
        try:
            return any(True for _ in self._backing.leases.iter_resources(info.id))
        except LeaseNotFoundError:
            return False

    def _settle(self, absent: frozenset[LeaseID]) -> None:
        """Wait no more for what was not there twice: at first its making may be on its way."""
        for lease in absent & self._missed:
            _doubt(lease)
        self._missed = absent - self._missed


def _place(backing: Backing) -> _Place:
    return backing.layout.case, backing.namespace


def _doubt(lease: LeaseID) -> None:
    _doubtful[lease] = None
    _unreleased.pop(lease, None)
    for oldest in list(_doubtful)[:-_MOST_DOUBTFUL]:
        _doubtful.pop(oldest, None)


def _forget(lease: LeaseID) -> None:
    _unreleased.pop(lease, None)
    _doubtful.pop(lease, None)
    _interrupted.discard(lease)


def is_abandoned(info: LeaseInfo) -> bool:
    """Whether a lease is ours and certainly nobody works under it any more."""
    if info.id in _unreleased or info.id in _doubtful or info.id in _interrupted:
        return True
    owner = lease_owner(info.labels)
    return owner is not None and is_dead(owner)


def is_resumable(info: LeaseInfo, now: datetime) -> bool:
    """Whether a lease is of work that can be gone on with, and its time is not over."""
    if labels.LEASE_RESUMES not in info.labels:
        return False
    try:
        return parse_instant(info.labels[labels.GC_EXPIRE], now=now) > now
    except (KeyError, InvalidNameError):
        return False


def lease_owner(lease_labels: Mapping[str, str]) -> ProcessIdentity | None:
    """Give the process that a lease's labels name; None for a lease that is not ours."""
    try:
        return ProcessIdentity(
            boot_id=lease_labels[labels.LEASE_BOOT_ID],
            pid=int(lease_labels[labels.LEASE_PID]),
            start_time=int(lease_labels[labels.LEASE_START_TIME]),
            pid_namespace=int(lease_labels[labels.LEASE_PID_NAMESPACE]),
        )
    except (KeyError, ValueError):
        return None


def _owner_labels(owner: ProcessIdentity) -> dict[str, str]:
    return {
        labels.LEASE_BOOT_ID: owner.boot_id,
        labels.LEASE_PID: str(owner.pid),
        labels.LEASE_START_TIME: str(owner.start_time),
        labels.LEASE_PID_NAMESPACE: str(owner.pid_namespace),
    }


def _rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
