"""Parsing of manifests, indexes, configs and archive documents."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.errors import (
    CasError,
    IntegrityError,
    LimitExceededError,
    MalformedDocumentError,
)
from cas.model.descriptor import Descriptor, Platform
from cas.model.digest import Digest
from cas.model.documents import (
    Index,
    Manifest,
    children,
    parse_config,
    parse_docker_archive,
    parse_document,
    parse_layout_index,
    parse_layout_version,
)
from cas.model.limits import Limits
from cas.model.media_types import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)

LIMITS = Limits()
SMALL = replace(LIMITS, document_bytes=1000, descriptors=3, layers=2, blob_bytes=1_000_000)

Json = dict[str, Any]


def blob(media_type: str = OCI_LAYER_GZIP, text: str = "x", **more: object) -> Json:
    """A descriptor as JSON value."""
    return {"mediaType": media_type, "digest": str(Digest.of(text.encode())), "size": 1, **more}


def manifest(**changes: object) -> Json:
    """A manifest as JSON value; a change to None removes the key."""
    document: Json = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": blob(OCI_CONFIG, "config"),
        "layers": [blob()],
    } | changes
    return {key: value for key, value in document.items() if value is not None}


def index(**changes: object) -> Json:
    """An index as JSON value."""
    document: Json = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [blob(OCI_MANIFEST, platform={"os": "linux", "architecture": "x86_64"})],
    } | changes
    return {key: value for key, value in document.items() if value is not None}


def parse(
    document: object, media_type: str = OCI_MANIFEST, limits: Limits = LIMITS
) -> Manifest | Index:
    """Parse a JSON value, or bytes, as what ``media_type`` says."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_document(raw, Descriptor(media_type, Digest.of(raw), len(raw)), limits)


def test_parse_manifest_valid_keeps_bytes_and_order() -> None:
    """The parsed manifest has its raw bytes, its config and its layers in order."""
    document = manifest(layers=[blob(text="b"), blob(text="a"), blob(text="b")])
    raw = json.dumps(document, indent=3).encode()
    parsed = parse(raw)
    assert isinstance(parsed, Manifest)
    assert parsed.raw == raw
    assert parsed.config.media_type == OCI_CONFIG
    assert [str(each.digest) for each in parsed.layers] == [
        each["digest"] for each in document["layers"]
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaType": None},
        {"mediaType": ""},
        {"schemaVersion": 0},
        {"schemaVersion": None},
        {"layers": None},
        {"annotations": {"a": "b"}, "artifactType": "text/plain", "subject": blob()},
        {"unknown": [1, {"nested": None}]},
    ],
)
def test_parse_manifest_optional_parts_may_differ(changes: Json) -> None:
    """What the specification leaves open is accepted."""
    assert isinstance(parse(manifest(**changes)), Manifest)


def test_parse_docker_manifest_and_list_are_understood() -> None:
    """Docker's schema 2 is the same under other names."""
    assert isinstance(parse(manifest(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST), Manifest)
    assert isinstance(parse(index(mediaType=DOCKER_INDEX), DOCKER_INDEX), Index)


def test_parse_index_normalises_platforms() -> None:
    """Platforms of entries are comparable, empty ones count as absent."""
    entries = [
        blob(OCI_MANIFEST, platform={"os": "linux", "architecture": "aarch64", "variant": "v8"}),
        blob(OCI_MANIFEST, platform={"os": "", "architecture": ""}),
        blob(OCI_MANIFEST),
    ]
    parsed = parse(index(manifests=entries), OCI_INDEX)
    assert isinstance(parsed, Index)
    platforms = [each.platform for each in parsed.manifests]
    assert platforms == [Platform("linux", "arm64"), None, None]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'"text"',
        b'{"schemaVersion": 2',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"config":' * 50_000,
        manifest(config=None),
        manifest(config="text"),
        manifest(layers="text"),
        manifest(layers=[1]),
        manifest(schemaVersion="2"),
        manifest(schemaVersion=1),
        manifest(schemaVersion=3),
        manifest(mediaType=OCI_INDEX),
        manifest(mediaType=7),
        manifest(annotations={"a": 1}),
        manifest(config=blob(OCI_CONFIG, size=-1)),
        manifest(config=blob(OCI_CONFIG, size="1")),
        manifest(config=blob(OCI_CONFIG, digest="sha256:abc")),
        manifest(config=blob(OCI_CONFIG, digest="sha512:" + "a" * 128)),
        manifest(config=blob(OCI_CONFIG, digest="sha256:" + "A" * 64)),
        manifest(config=blob("")),
        manifest(config=blob("a/" + "b" * 254)),
        manifest(config=blob("a/\x1b[31m")),
        manifest(layers=[blob("a/\N{CYRILLIC SMALL LETTER A}")]),
        manifest(layers=[blob(platform="linux")]),
    ],
)
def test_parse_manifest_malformed_is_refused(document: object) -> None:
    """Anything that is not a manifest is one kind of error, without a traceback."""
    with pytest.raises(MalformedDocumentError):
        parse(document)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        (manifest(manifests=[]), OCI_MANIFEST),
        (manifest(fsLayers=[]), OCI_MANIFEST),
        (index(layers=[]), OCI_INDEX),
        (index(config={}), OCI_INDEX),
        (index(fsLayers=[]), OCI_INDEX),
        (manifest(Layers=[blob(text="other")]), OCI_MANIFEST),
        (manifest(LAYERS=[]), OCI_MANIFEST),
        (index(Manifests=[]), OCI_INDEX),
        (manifest(MediaType=OCI_INDEX), OCI_MANIFEST),
    ],
)
def test_parse_document_ambiguous_is_refused(document: Json, media_type: str) -> None:
    """What another reader could take for another document is refused (CVE-2021-41190)."""
    with pytest.raises(MalformedDocumentError):
        parse(document, media_type)


@pytest.mark.parametrize(
    "media_type",
    ["application/octet-stream", "application/vnd.docker.distribution.manifest.v1+prettyjws"],
)
def test_parse_document_unknown_type_is_refused(media_type: str) -> None:
    """A type that is neither manifest nor index is named in the error."""
    with pytest.raises(MalformedDocumentError, match=media_type.replace("+", r"\+")):
        parse(manifest(), media_type)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        (manifest(annotations={"a": "x" * 1000}), OCI_MANIFEST),
        (manifest(layers=[blob()] * 3), OCI_MANIFEST),
        (manifest(layers=[blob("text/plain")] * 4), OCI_MANIFEST),
        (index(manifests=[blob(OCI_MANIFEST)] * 4), OCI_INDEX),
        (manifest(layers=[blob(size=1_000_001)]), OCI_MANIFEST),
    ],
)
def test_parse_document_above_a_limit_is_refused(document: Json, media_type: str) -> None:
    """Bytes, entries, layers and sizes of blobs are limited."""
    limits = replace(SMALL, document_bytes=1000 if "annotations" in document else 5000)
    with pytest.raises(LimitExceededError):
        parse(document, media_type, limits)


def test_children_of_manifest_have_the_labels_of_containerd() -> None:
    """Config first, layers counted, other blobs counted for themselves."""
    document = parse(
        manifest(layers=[blob(text="1"), blob("text/plain", "2"), blob(text="1"), blob("a/b", "3")])
    )
    assert [
        (child.label.removeprefix("containerd.io/gc.ref.content"), child.descriptor.media_type)
        for child in children(document)
    ] == [
        (".config", OCI_CONFIG),
        (".l.0", OCI_LAYER_GZIP),
        (".0", "text/plain"),
        (".l.1", OCI_LAYER_GZIP),
        (".1", "a/b"),
    ]


def test_children_of_index_have_the_labels_of_containerd() -> None:
    """Manifests and nested indexes have counters of their own."""
    entries = [blob(OCI_MANIFEST, "1"), blob(OCI_INDEX, "2"), blob(OCI_MANIFEST, "3")]
    document = parse(index(manifests=entries), OCI_INDEX)
    labels = [child.label.removeprefix("containerd.io/") for child in children(document)]
    assert labels == ["gc.ref.content.m.0", "gc.ref.content.0", "gc.ref.content.m.1"]


def test_children_labels_never_repeat() -> None:
    """Two configs in one document do not share a label."""
    document = parse(manifest(layers=[blob(OCI_CONFIG, "second")]))
    labels = [child.label for child in children(document)]
    assert labels == ["containerd.io/gc.ref.content.config", "containerd.io/gc.ref.content.config1"]


def config(document: object, media_type: str = OCI_CONFIG, limits: Limits = LIMITS) -> Any:
    """Parse an image config."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_config(raw, Descriptor(media_type, Digest.of(raw), len(raw)), limits)


def test_parse_config_full_gives_platform_diff_ids_and_labels() -> None:
    """The parts that the store needs are there."""
    diff_id = str(Digest.of(b"layer"))
    parsed = config(
        {
            "os": "linux",
            "architecture": "arm",
            "variant": "7",
            "created": "2026-01-02T03:04:05Z",
            "rootfs": {"type": "layers", "diff_ids": [diff_id, diff_id]},
            "config": {"Labels": {"a": "b"}, "Cmd": None},
        }
    )
    assert parsed.platform == Platform("linux", "arm", "v7")
    assert [str(each) for each in parsed.diff_ids] == [diff_id, diff_id]
    assert parsed.labels == {"a": "b"}


@pytest.mark.parametrize(
    "document",
    [{}, {"rootfs": None, "config": None}, {"os": "", "architecture": "amd64", "rootfs": {}}],
)
def test_parse_config_of_artifact_has_no_platform(document: Json) -> None:
    """Configs of artifacts may be nearly empty."""
    parsed = config(document)
    assert (parsed.platform, parsed.diff_ids, parsed.labels) == (None, (), {})


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        {"rootfs": {"diff_ids": "x"}},
        {"rootfs": {"diff_ids": ["x"]}},
        {"rootfs": {"diff_ids": [""]}},
        {"os": 1},
        {"config": {"Labels": {"a": 1}}},
    ],
)
def test_parse_config_malformed_is_refused(document: object) -> None:
    """Wrong types are one kind of error."""
    with pytest.raises(MalformedDocumentError):
        config(document)


def test_parse_config_of_other_type_is_called_an_artifact() -> None:
    """A config of unknown type is not an image's."""
    with pytest.raises(MalformedDocumentError, match="artifact"):
        config({}, "application/vnd.oci.empty.v1+json")


def test_parse_config_with_too_many_diff_ids_is_refused() -> None:
    """Diff IDs are limited like everything else."""
    diff_ids = [str(Digest.of(b""))] * 4
    with pytest.raises(LimitExceededError):
        config({"rootfs": {"diff_ids": diff_ids}}, limits=SMALL)


def test_parse_layout_version_other_is_refused() -> None:
    """There is one version of the layout."""
    parse_layout_version(b'{"imageLayoutVersion": "1.0.0"}', LIMITS)
    for raw in (b'{"imageLayoutVersion": "2.0.0"}', b"{}", b"1.0.0"):
        with pytest.raises(MalformedDocumentError):
            parse_layout_version(raw, LIMITS)


def test_parse_layout_index_reads_entries() -> None:
    """index.json needs no descriptor to be parsed."""
    assert len(parse_layout_index(json.dumps(index()).encode(), LIMITS).manifests) == 1


def test_parse_docker_archive_reads_images() -> None:
    """Tags and layers may be null or absent."""
    raw = json.dumps(
        [
            {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["x/layer.tar"]},
            {"Config": "d.json", "RepoTags": None, "Layers": None, "LayerSources": {}},
            {"Config": "e.json"},
        ]
    ).encode()
    entries = parse_docker_archive(raw, LIMITS)
    assert [(entry.config, entry.tags, entry.layers) for entry in entries] == [
        ("c.json", ("a:1",), ("x/layer.tar",)),
        ("d.json", (), ()),
        ("e.json", (), ()),
    ]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({}, MalformedDocumentError),
        ([{}], MalformedDocumentError),
        ([{"Config": 1}], MalformedDocumentError),
        ([{"Config": "c"}] * 4, LimitExceededError),
        ([{"Config": "c", "Layers": ["l"] * 3}], LimitExceededError),
    ],
)
def test_parse_docker_archive_malformed_is_refused(document: object, error: type[CasError]) -> None:
    """Wrong types and too many entries are refused."""
    with pytest.raises(error):
        parse_docker_archive(json.dumps(document).encode(), SMALL)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["config", "layers", "manifests", "mediaType", "size", "digest", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON, st.sampled_from([OCI_MANIFEST, OCI_INDEX]))
def test_parse_garbage_json_raises_only_integrity_errors(document: object, media_type: str) -> None:
    """Whatever the JSON holds, the answer is a document or an integrity error."""
    try:
        parse(document, media_type)
    except IntegrityError:
        return


@given(st.binary(max_size=200))
def test_parse_garbage_bytes_raises_only_integrity_errors(raw: bytes) -> None:
    """Whatever the bytes are, every parser answers with an integrity error or a value."""
    for attempt in (
        lambda: parse(raw),
        lambda: parse(raw, OCI_INDEX),
        lambda: config(raw),
        lambda: parse_layout_version(raw, LIMITS),
        lambda: parse_docker_archive(raw, LIMITS),
    ):
        try:
            attempt()
        except IntegrityError:
            continue
