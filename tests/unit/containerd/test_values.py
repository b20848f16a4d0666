"""Between containerd's messages and our values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.containerd.values import (
    checked_labels,
    descriptor_message,
    descriptor_value,
    label_changes,
    mount_messages,
    mount_values,
    quoted,
)
from cas.errors import InvalidNameError
from cas.model.descriptor import Descriptor
from cas.model.digest import Digest
from cas.model.labels import MAX_LABEL_BYTES
from cas.model.records import Mount


def test_checked_labels_at_the_limit_pass_and_above_it_fail() -> None:
    """containerd would refuse only after the content was sent."""
    fitting = {"key": "v" * (MAX_LABEL_BYTES - 3)}
    assert checked_labels(fitting) == fitting
    with pytest.raises(InvalidNameError, match="4097 bytes"):
        checked_labels({"key": "v" * (MAX_LABEL_BYTES - 2)})


def test_checked_labels_count_bytes_not_characters() -> None:
    """The limit is on what is stored."""
    with pytest.raises(InvalidNameError):
        checked_labels({"k": "ä" * (MAX_LABEL_BYTES // 2)})


def test_label_changes_none_becomes_removal_of_that_label_only() -> None:
    """containerd removes what is set to nothing, and leaves what the mask does not name."""
    labels, mask = label_changes({"a/b.c": "1", "gone": None})

    assert labels == {"a/b.c": "1", "gone": ""}
    assert list(mask.paths) == ["labels.a/b.c", "labels.gone"]


@given(st.text())
def test_quoted_any_text_keeps_its_value(text: str) -> None:
    """A comma or a quote in a value ends neither value nor filter."""
    assert quoted(text).startswith('"')
    assert json.loads(quoted(text)) == text


def test_descriptor_round_trip_keeps_everything_but_the_platform() -> None:
    """What containerd stores comes back."""
    descriptor = Descriptor("a/b", Digest.of(b"x"), 1, annotations={"k": "v"})
    again = descriptor_value(descriptor_message(descriptor))

    assert again == descriptor
    assert again.annotations == {"k": "v"}


def test_mounts_round_trip() -> None:
    """Options keep their order."""
    mounts = [Mount("overlay", "overlay", ("workdir=/w", "upperdir=/u", "lowerdir=/b:/a"))]
    assert mount_values(mount_messages(mounts)) == mounts
