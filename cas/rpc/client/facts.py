"""What a service says of itself."""

__all__ = ["ServiceFacts", "service_facts"]

import os
from dataclasses import dataclass
from pathlib import Path

from cas._gen.cas.v1 import store_pb2
from cas.model.descriptor import Platform
from cas.rpc import values


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """A service's answer to who it is.

    Args:
        cas: Version of its program.
        containerd: Version of its containerd.
        persist: The persist directory that it serves.
        namespace: containerd's namespace that it works in.
        snapshotter: Its snapshotter plugin.
        address: containerd's socket.
        content_root: containerd's content directory; None if containerd does not tell.
        platform: What images are resolved for.
        allowed_directories: What the path of a file that it shall read must lie below.
        message_bytes: Largest message that it takes.
    """

    cas: str
    containerd: str
    persist: Path
    namespace: str
    snapshotter: str
    address: Path
    content_root: Path | None
    platform: Platform
    allowed_directories: tuple[Path, ...]
    message_bytes: int

    def path_for_service(self, path: Path) -> Path | None:
        """Give the path under which the service may read a file; None where it may not.

        It follows no symbolic links, and a message can only carry a name that is text.
        """
        absolute = os.path.abspath(path)  # noqa: PTH100 (links must stay as they are)
        if os.path.realpath(absolute) != absolute or not _is_text(absolute):
            return None
        found = Path(absolute)
        inside = any(directory in found.parents for directory in self.allowed_directories)
        return found if inside else None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def service_facts(message: store_pb2.VersionResponse) -> ServiceFacts:
    """Read the answer.

    Raises:
        InvalidNameError: It names no platform.
    """
    return ServiceFacts(
        cas=message.cas,
        containerd=message.containerd,
        persist=Path(message.persist),
        namespace=message.namespace,
        snapshotter=message.snapshotter,
        address=Path(message.address),
        content_root=Path(message.content_root) if message.content_root else None,
        platform=values.platform(message.platform),
        allowed_directories=tuple(map(Path, message.allowed_directories)),
        message_bytes=message.message_bytes,
    )
