"""Makes a downloaded file the verifier's own; with the rights of root, which alone can.

The verifier's user could take a file out of the downloader's directory only if it were allowed to
write there, and could never take it away from its owner, who could make it writable again. So
neither directory is open to the other agent, and this module, which parses nothing, does the two
steps in between. It trusts nothing about the file: the downloader may have been taken over by
what it downloaded.
"""

__all__ = ["HandOver"]

import os
from dataclasses import dataclass
from pathlib import Path

from cas.errors import IntegrityError
from cas.fsops.durable import publish
from cas.fsops.inode import ExclusiveInode
from cas.fsops.trees import remove_tree
from cas.model.layout import Layout
from cas.model.transfer_name import TransferName

_MODE = 0o440


@dataclass(frozen=True, slots=True)
class HandOver:
    """From the downloader to the verifier.

    Args:
        layout: Where their directories are.
        user: User id of the verifier.
        readers: Group id of whoever may read what the verifier holds.
    """

    layout: Layout
    user: int
    readers: int

    def take(self, name: TransferName) -> None:
        """Move a whole download into ``pending`` and make it unchangeable. Idempotent.

        On return the file is a regular one with a single name, owned by the verifier, writable by
        nobody and open for writing nowhere, and all that is durable. A download that cannot be
        made so is removed.

        Args:
            name: Of the file, in both directories.

        Raises:
            IntegrityError: It is not a regular file, has a second name, or somebody writes it.
            StorageError: There is no such file, or a system call failed.
        """
        # Renamed first: in the verifier's directory nobody swaps the name for another file.
        publish(self.layout.download(name), self._pending(name), replace=True)
        self.seal(name)

    def take_back(self, name: TransferName) -> bool:
        """Move a file of ``verified`` into ``pending``, if there is one, durably. Idempotent.

        What another process left there was proven when nobody of us looked. Nothing else is done
        to it: it is to be sealed and verified like a download.

        Args:
            name: That it gets in ``pending``; its digest is the name in ``verified``.

        Returns:
            Whether there was one.

        Raises:
            StorageError: A system call failed.
        """
        verified = self.layout.verified / name.digest.hex
        if not os.path.lexists(verified):
            return False
        publish(verified, self._pending(name), replace=True)
        return True

    def seal(self, name: TransferName) -> None:
        """Make a file in ``pending`` unchangeable: what a crash may have kept :meth:`take` from.

        Raises:
            IntegrityError: As :meth:`take`; the file is removed.
            SourceNotFoundError: There is no such file.
            StorageError: A system call failed.
        """
        path = self._pending(name)
        taken = ExclusiveInode.take(path, path.parent)
        if taken is None:
            raise self._refused(path, "is not a regular file with one name and no writer")
        with taken:
            sealed = taken.seal(user=self.user, group=self.readers, mode=_MODE)
            # Whoever asked to write before the owner changed waits for us, and would get in.
            if not sealed or taken.has_waiting_writer():
                raise self._refused(path, "was opened for writing after it was complete")

    def _pending(self, name: TransferName) -> Path:
        return self.layout.pending / str(name)

    def _refused(self, path: Path, why: str) -> IntegrityError:
        remove_tree(path)
        return IntegrityError(
            f"download {path.name} {why}; it was removed, since its content could change after it "
            "was verified",
            path=path,
        )
