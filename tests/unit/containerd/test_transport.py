"""Requests that would kill containerd do not leave."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from cas._gen.containerd.services.content.v1 import content_pb2
from cas._gen.containerd.services.diff.v1 import diff_pb2
from cas._gen.containerd.services.images.v1 import images_pb2
from cas._gen.containerd.services.leases.v1 import leases_pb2
from cas._gen.containerd.services.namespaces.v1 import namespace_pb2
from cas._gen.containerd.services.snapshots.v1 import snapshots_pb2
from cas._gen.containerd.types import descriptor_pb2
from cas.containerd.transport import complete

_TARGET = descriptor_pb2.Descriptor(media_type="a/b", digest="sha256:0", size=1)
_MASK = FieldMask(paths=["labels"])


@pytest.mark.parametrize(
    "request_message",
    [
        images_pb2.CreateImageRequest(),
        images_pb2.CreateImageRequest(image=images_pb2.Image(name="x")),
        images_pb2.UpdateImageRequest(image=images_pb2.Image(name="x"), update_mask=_MASK),
        images_pb2.UpdateImageRequest(image=images_pb2.Image(name="x", target=_TARGET)),
        content_pb2.UpdateRequest(update_mask=_MASK),
        diff_pb2.ApplyRequest(),
        leases_pb2.AddResourceRequest(id="l"),
        namespace_pb2.CreateNamespaceRequest(),
        snapshots_pb2.UpdateSnapshotRequest(update_mask=_MASK),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_complete_unset_submessage_is_refused(request_message: Message) -> None:
    """containerd 1.7 and later dereference what is not there and die."""
    with pytest.raises(ValueError, match="lacks"):
        complete(request_message)


@pytest.mark.parametrize(
    "request_message",
    [
        images_pb2.CreateImageRequest(image=images_pb2.Image(name="x", target=_TARGET)),
        images_pb2.DeleteImageRequest(name="x"),
        leases_pb2.CreateRequest(id="l"),
        content_pb2.WriteContentRequest(ref="r"),
        snapshots_pb2.PrepareSnapshotRequest(key="k", labels={"a": "b"}),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_complete_whole_message_passes_unchanged(request_message: Message) -> None:
    """Times, which answers fill, optional and repeated fields may be unset."""
    assert complete(request_message) is request_message
