"""A store as older software leaves it: a containerd's, with an image and a container's snapshot."""

__all__ = ["BLOB_LABELS", "LABELS", "OldContainer", "make_old_store"]

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cas.fsops.mounts import mount, unmount
from cas.model.digest import Digest
from cas.model.labels import GC_ROOT, KEEP, SIGNED_BY
from cas.model.records import LeaseID
from tests.support.daemon import connect, persist_directory, private_daemon, settings_for
from tests.support.images import BuiltImage, layered_image
from tests.support.old_device import OldApp, OldDevice
from tests.support.volumes import add_image, open_store

BLOB_LABELS = {"example.com/blob": "old", "example.com/owner": "us"}
"""Of the first layer of each image, beside those that are containerd's own."""
LABELS = {KEEP: "yes", SIGNED_BY: "a key", "example.com/owner": "us"}
"""Of the image, beside one that is containerd's own."""


@dataclass(frozen=True)
class OldContainer:
    """What was put into it.

    Args:
        app: Whose container it is.
        image: The image.
        key: Of the snapshot.
    """

    app: OldApp
    image: BuiltImage
    key: str


def make_old_store(
    device: OldDevice,
    store: Path,
    binary: str,
    *,
    seed: str = "",
    app: str = "boxed",
    others: Sequence[BuiltImage] = (),
    image_stays: bool = True,
    committed: str = "",
) -> OldContainer:
    """Let a containerd make a store, stop it, and put the store where older software had it.

    Args:
        device: Gets the container's directory and its app.
        store: Where the store was.
        binary: containerd.
        seed: Tells the image's content from that of others.
        app: The app's name.
        others: More images.
        image_stays: Or only what was unpacked of it.
        committed: A snapshot of this name on top of the image, committed and kept by its label.
    """
    image = layered_image(2, name="example.com/old:1", seed=seed)
    added = device.add(OldApp(app))
    device.response.config.apps[-1].drives[0].image.sha256 = image.digest.removeprefix("sha256:")
    key = f"{image.digest.removeprefix('sha256:')}-{added.app}"
    device.container(key)
    with persist_directory() as directory, private_daemon(settings_for(directory, binary)) as old:
        with connect(old.settings) as containerd:
            opened = open_store(containerd, old.settings)
            add_image(opened, image)
            parent = opened.unpack_image(image.name)
            mounts = containerd.snapshots.prepare(key, parent, None, {GC_ROOT: "1"})
            root = directory / "mnt"
            root.mkdir()
            mount(mounts, root)
            (root / "written").write_text("by the app")
            unmount(root)
            if committed:
                containerd.snapshots.prepare("draft", parent, None, {GC_ROOT: "1"})
                lease = containerd.leases.create(LeaseID("committing"), {}).id
                containerd.snapshots.commit(committed, "draft", lease, {GC_ROOT: "1"})
                containerd.leases.delete(lease)
            containerd.images.update_labels(
                containerd.images.get(image.name), {**LABELS, GC_ROOT: "1"}
            )
            for other in others:
                add_image(opened, other)
            for labelled in (image, *others):
                layer = Digest.parse(labelled.layers[0].digest)
                containerd.content.update_labels(layer, BLOB_LABELS)
            if not image_stays:
                containerd.images.delete(image.name, sync=True)
        old.stop()
        store.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(old.settings.layout.case, store, symlinks=True)
    return OldContainer(added, image, key)
