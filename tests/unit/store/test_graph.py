"""The graph of who keeps whom."""

import hashlib
import tracemalloc

import pytest

from cas.store.account.graph import Graph, Kind, references, referrers


def _chain() -> tuple[Graph, dict[str, int]]:
    """Image i keeps manifest m, which keeps layer l and, dangling, layer x; blob o is alone."""
    graph = Graph()
    nodes = {
        "i": graph.add(Kind.IMAGE, "i", keeps=[(Kind.BLOB, "m")]),
        "m": graph.add(Kind.BLOB, "m", size=1, keeps=[(Kind.BLOB, "l"), (Kind.BLOB, "x")]),
        "l": graph.add(Kind.BLOB, "l", size=10),
        "o": graph.add(Kind.BLOB, "o", size=100),
    }
    return graph, nodes


def test_marking_reaches_everything_kept_and_nothing_else() -> None:
    """Marks follow edges to the end, dangling names included; a second root adds what is new."""
    graph, nodes = _chain()
    marks = graph.marks()
    first = {graph.name(node) for node in graph.mark([nodes["i"]], marks)}
    assert first == {"i", "m", "l", "x"}
    assert [graph.name(node) for node in graph.mark([nodes["m"], nodes["o"]], marks)] == ["o"]


def test_dangling_name_does_not_exist_until_it_is_added() -> None:
    """An object may be referred to before it comes, and counts once it is there."""
    graph, _ = _chain()
    assert graph.find(Kind.BLOB, "x") is None
    assert graph.find(Kind.BLOB, "x", dangling=True) is not None
    node = graph.add(Kind.BLOB, "x", size=5)
    assert graph.find(Kind.BLOB, "x") == node
    assert [graph.name(each) for each in graph.nodes(Kind.BLOB)] == ["m", "l", "x", "o"]


def test_same_name_of_two_kinds_is_two_objects() -> None:
    """A layer's blob and its snapshot may have the same digest."""
    graph = Graph()
    blob = graph.add(Kind.BLOB, "sha256:1")
    snapshot = graph.add(Kind.SNAPSHOT, "sha256:1")
    assert blob != snapshot
    assert len(graph) == 2


def test_path_is_a_shortest_chain_from_any_root() -> None:
    """Of two ways the shorter is told; without a way there is none."""
    graph, nodes = _chain()
    near = graph.add(Kind.LEASE, "near", keeps=[(Kind.BLOB, "l")])
    assert graph.path([nodes["i"], near], nodes["l"]) == [near, nodes["l"]]
    assert graph.path([nodes["i"]], nodes["l"]) == [nodes["i"], nodes["m"], nodes["l"]]
    assert graph.path([nodes["i"]], nodes["o"]) is None


def test_keepers_are_all_from_which_the_target_is_reached() -> None:
    """Both directions agree."""
    graph, nodes = _chain()
    assert graph.keepers(nodes["l"]) == {nodes["l"], nodes["m"], nodes["i"]}
    assert graph.keepers(nodes["o"]) == {nodes["o"]}


def test_circle_of_references_ends() -> None:
    """Labels may refer in a circle; nothing hangs."""
    graph = Graph()
    first = graph.add(Kind.BLOB, "1", keeps=[(Kind.BLOB, "2")])
    second = graph.add(Kind.BLOB, "2", keeps=[(Kind.BLOB, "1")])
    assert set(graph.mark([first], graph.marks())) == {first, second}
    assert graph.keepers(first) == {first, second}


def test_back_reference_is_an_edge_from_the_other_side() -> None:
    """An object may ask to live as long as another."""
    graph = Graph()
    keeper = graph.add(Kind.BLOB, "keeper")
    kept = graph.add(Kind.SNAPSHOT, "kept", kept_by=[(Kind.BLOB, "keeper")])
    assert graph.path([keeper], kept) == [keeper, kept]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("containerd.io/gc.ref.content", Kind.BLOB),
        ("containerd.io/gc.ref.content.l.0", Kind.BLOB),
        ("containerd.io/gc.ref.content/any", Kind.BLOB),
        ("containerd.io/gc.ref.contentz", None),
        ("containerd.io/gc.ref.snapshot.overlayfs", Kind.SNAPSHOT),
        ("containerd.io/gc.ref.snapshot.overlayfs/more", Kind.SNAPSHOT),
        ("containerd.io/gc.ref.snapshot.overlayfs2", None),
        ("containerd.io/gc.ref.snapshot.native", None),
        ("containerd.io/gc.ref.image", Kind.IMAGE),
        ("containerd.io/gc.ref.image.x", Kind.IMAGE),
        ("containerd.io/gc.root", None),
        ("other", None),
    ],
)
def test_label_is_an_edge_exactly_when_containerd_follows_it(key: str, kind: Kind | None) -> None:
    """The rules of containerd's collector."""
    expected = [] if kind is None else [(kind, "value")]
    assert list(references({key: "value"}, "overlayfs")) == expected


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("containerd.io/gc.bref.content", Kind.BLOB),
        ("containerd.io/gc.bref.image.x", Kind.IMAGE),
        ("containerd.io/gc.bref.snapshot.overlayfs", Kind.SNAPSHOT),
        ("containerd.io/gc.bref.snapshot.native", None),
        ("containerd.io/gc.bref.container", None),
    ],
)
def test_back_reference_label_is_read_the_other_way_round(key: str, kind: Kind | None) -> None:
    """Those of containerd 2.2 and later."""
    expected = [] if kind is None else [(kind, "value")]
    assert list(referrers({key: "value"}, "overlayfs")) == expected


def test_graph_of_many_blobs_takes_at_most_400_bytes_each() -> None:
    """Memory is bounded per object, whatever its labels were."""
    count = 20_000
    tracemalloc.start()
    try:
        graph = Graph()
        for number in range(count):
            graph.add(
                Kind.BLOB, f"sha256:{hashlib.sha256(b'%d' % number).hexdigest()}", size=number
            )
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(graph) == count
    assert used / count <= 400
