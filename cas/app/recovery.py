"""What a recovery of the whole store consists of, and in which order."""

__all__ = ["recover_store"]

from cas.model.cancellation import check_operation
from cas.pull.leftovers import sweep_transfers
from cas.store.backing import Backing
from cas.store.content.ingest import Ingest
from cas.store.image.sent_blobs import let_go_of_sent_blobs
from cas.store.leasing import Leasing
from cas.upgrade.settling import sweep_temporary_copies
from cas.volumes.volumes import Volumes


def recover_store(backing: Backing, leasing: Leasing, volumes: Volumes) -> None:
    """Do what :meth:`cas.app.case.Case.recover` promises."""
    backing.check_writable()
    leasing.reap()
    check_operation()
    volumes.recover()
    check_operation()
    let_go_of_sent_blobs(backing)
    Ingest(backing).sweep()
    sweep_transfers(backing.layout)
    sweep_temporary_copies(backing.layout)
