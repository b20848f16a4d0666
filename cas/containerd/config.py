"""The configuration of an embedded containerd: a store and nothing else.

Version 2 of the format is what 1.6, 1.7 and 2.x all read. Plugins that run containers are off,
plugins that the store needs are required, so that containerd exits instead of running without
them. Nothing listens on TCP.
"""

__all__ = ["render"]

import json
from collections.abc import Sequence

from cas.containerd.place import Place
from cas.model.settings import Settings

_REQUIRED = (
    "io.containerd.content.v1.content",
    "io.containerd.differ.v1.walking",
    "io.containerd.gc.v1.scheduler",
    "io.containerd.grpc.v1.content",
    "io.containerd.grpc.v1.diff",
    "io.containerd.grpc.v1.events",
    "io.containerd.grpc.v1.healthcheck",
    "io.containerd.grpc.v1.images",
    "io.containerd.grpc.v1.introspection",
    "io.containerd.grpc.v1.leases",
    "io.containerd.grpc.v1.namespaces",
    "io.containerd.grpc.v1.snapshots",
    "io.containerd.grpc.v1.version",
    "io.containerd.metadata.v1.bolt",
)

# Names that a version does not know are ignored by it. The mount manager, the event exchange, the
# lease manager and the deprecation warnings must stay: services that the store needs want them.
_DISABLED = (
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.differ.v1.erofs",
    "io.containerd.grpc.v1.containers",
    "io.containerd.grpc.v1.cri",
    "io.containerd.grpc.v1.sandbox-controllers",
    "io.containerd.grpc.v1.sandboxes",
    "io.containerd.grpc.v1.streaming",
    "io.containerd.grpc.v1.tasks",
    "io.containerd.grpc.v1.transfer",
    "io.containerd.image-verifier.v1.bindir",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.monitor.container.v1.restart",
    "io.containerd.monitor.task.v1.cgroups",
    "io.containerd.monitor.v1.cgroups",
    "io.containerd.nri.v1.nri",
    "io.containerd.podsandbox.controller.v1.podsandbox",
    "io.containerd.runtime.v1.linux",
    "io.containerd.runtime.v2.shim",
    "io.containerd.runtime.v2.task",
    "io.containerd.sandbox.controller.v1.local",
    "io.containerd.sandbox.controller.v1.shim",
    "io.containerd.sandbox.store.v1.local",
    "io.containerd.service.v1.containers-service",
    "io.containerd.service.v1.tasks-service",
    "io.containerd.shim.v1.manager",
    "io.containerd.streaming.v1.manager",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.transfer.v1.local",
    "io.containerd.ttrpc.v1.otelttrpc",
)

_SNAPSHOTTER = "io.containerd.snapshotter.v1"
_SNAPSHOTTERS = ("aufs", "blockfile", "btrfs", "devmapper", "erofs", "native", "overlayfs", "zfs")

_RECEIVE_BYTES = 16 * 1024 * 1024
_SEND_BYTES = 64 * 1024 * 1024
"""A list of images is one message; containerd's own limit ends it at some 40,000 images."""

_MUTATION_THRESHOLD = 1000
"""Changes after which containerd collects unasked; its own 100 would stop a bulk ingest often."""
_NO_COLLECTION = """
  mutation_threshold = 0
  deletion_threshold = 0
  startup_delay = "87600h"
"""
"""The first collection comes after years; without thresholds no change brings it forward."""


def render(settings: Settings, place: Place | None = None) -> str:
    """Give the configuration file for these settings, as TOML.

    Args:
        settings: What it is to be like.
        place: Where; None means the store's own.
    """
    place = place or Place.of_store(settings)
    others = set(_SNAPSHOTTERS) - {settings.snapshotter}
    required = list(_REQUIRED)
    if settings.snapshotter in _SNAPSHOTTERS:
        required.append(f"{_SNAPSHOTTER}.{settings.snapshotter}")
        # Without any, the database refuses to start and the message does not say why.
        disabled = [*_DISABLED, *(f"{_SNAPSHOTTER}.{name}" for name in sorted(others))]
    else:
        disabled = list(_DISABLED)
    return f"""\
version = 2
root = {_text(place.root)}
state = {_text(place.state)}
imports = []
required_plugins = {_list(required)}
disabled_plugins = {_list(disabled)}

[grpc]
  address = {_text(place.socket)}
  uid = 0
  gid = 0
  max_recv_message_size = {_RECEIVE_BYTES}
  max_send_message_size = {_SEND_BYTES}

[ttrpc]
  address = {_text(place.ttrpc)}
  uid = 0
  gid = 0

[plugins."io.containerd.metadata.v1.bolt"]
  # Blobs that lie in the store already are registered instead of sent.
  content_sharing_policy = "shared"

[plugins."io.containerd.service.v1.diff-service"]
  # Unpacked files are synced; without effect before 1.7.26.
  sync_fs = true

[plugins."io.containerd.gc.v1.scheduler"]{_collection(place)}"""


def _collection(place: Place) -> str:
    return f"\n  mutation_threshold = {_MUTATION_THRESHOLD}\n" if place.collects else _NO_COLLECTION


def _text(value: object) -> str:
    # What JSON escapes is what a TOML basic string wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(values: Sequence[str]) -> str:
    lines = "".join(f"  {_text(value)},\n" for value in values)
    return f"[\n{lines}]"
