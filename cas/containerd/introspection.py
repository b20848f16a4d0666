"""What kind of containerd answers: version, directories, capabilities."""

__all__ = ["MINIMUM_VERSION", "DaemonFacts", "read_facts"]

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.empty_pb2 import Empty

from cas._gen.containerd.services.introspection.v1 import (
    introspection_pb2,
    introspection_pb2_grpc,
)
from cas._gen.containerd.services.version.v1 import version_pb2_grpc
from cas.containerd.translation import translated
from cas.containerd.transport import Transport
from cas.errors import DaemonVersionError

MINIMUM_VERSION = (1, 6, 0)
"""The oldest release line that the store is tested with."""

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)", re.ASCII)

_CONTENT = ("io.containerd.content.v1", "content")
_METADATA = ("io.containerd.metadata.v1", "bolt")
_SNAPSHOTTER = "io.containerd.snapshotter.v1"


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What a containerd says about itself; it does not change while the process lives.

    Args:
        version: Major, minor, patch; the oldest supported one if the text has no such numbers.
        version_text: As containerd spells it, with the packager's suffix.
        content_root: Directory of the content store on the daemon's side.
        sharing_policy: ``shared`` or ``isolated``: whether namespaces share blobs.
        capabilities: Of the snapshotter, such as ``rebase``.
        snapshotter_error: Why the snapshotter cannot be used, or None.
    """

    version: tuple[int, int, int]
    version_text: str
    content_root: Path | None
    sharing_policy: str
    capabilities: frozenset[str]
    snapshotter_error: str | None


def read_facts(transport: Transport, snapshotter: str) -> DaemonFacts:
    """Ask the daemon.

    Raises:
        DaemonVersionError: It is older than :data:`MINIMUM_VERSION`.
    """
    text = _version_text(transport)
    version = _parse_version(text)
    if version < MINIMUM_VERSION:
        raise DaemonVersionError(
            f"containerd {text} is too old: 1.6.0 or newer is needed", actual=text
        )
    plugins = _plugins(transport)
    chosen = _find(plugins, (_SNAPSHOTTER, snapshotter))
    return DaemonFacts(
        version=version,
        version_text=text,
        content_root=_root(_find(plugins, _CONTENT)),
        sharing_policy=_sharing_policy(_find(plugins, _METADATA)),
        capabilities=frozenset(chosen.capabilities if chosen else ()),
        snapshotter_error=_snapshotter_error(plugins, chosen, snapshotter),
    )


def _version_text(transport: Transport) -> str:
    stub = version_pb2_grpc.VersionStub(transport.channel)
    with translated("ask containerd for its version"):
        return transport.unary(stub.Version, Empty()).version


def _parse_version(text: str) -> tuple[int, int, int]:
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else MINIMUM_VERSION


def _plugins(transport: Transport) -> Sequence[introspection_pb2.Plugin]:
    stub = introspection_pb2_grpc.IntrospectionStub(transport.channel)
    with translated("list containerd's plugins"):
        return transport.unary(stub.Plugins, introspection_pb2.PluginsRequest()).plugins


def _find(
    plugins: Sequence[introspection_pb2.Plugin], wanted: tuple[str, str]
) -> introspection_pb2.Plugin | None:
    return next((plugin for plugin in plugins if (plugin.type, plugin.id) == wanted), None)


def _root(plugin: introspection_pb2.Plugin | None) -> Path | None:
    root = plugin.exports.get("root") if plugin else None
    return Path(root) if root else None


def _sharing_policy(plugin: introspection_pb2.Plugin | None) -> str:
    return plugin.exports.get("policy", "") if plugin else ""


def _snapshotter_error(
    plugins: Sequence[introspection_pb2.Plugin],
    chosen: introspection_pb2.Plugin | None,
    name: str,
) -> str | None:
    if chosen is None:
        known = sorted(plugin.id for plugin in plugins if plugin.type == _SNAPSHOTTER)
        return f"containerd has no snapshotter {name!r}, only {', '.join(known) or 'none'}"
    if chosen.HasField("init_err"):
        return f"snapshotter {name!r} did not start: {chosen.init_err.message}"
    return None
