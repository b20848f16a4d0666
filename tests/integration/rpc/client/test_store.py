"""The store as a whole through the client: prune, usage, why, check, events."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cas.app import Case
from cas.errors import NotFoundError, UsageError
from cas.model.cancellation import Cancellation
from cas.model.digest import Digest
from cas.model.events import EventKind
from cas.rpc.client import Client
from cas.store.check.findings import Problem
from cas.store.prune.plan import Goal, PlannedObject, PrunePlan
from cas.store.prune.selection import Scope, parse_selection
from tests.support.daemon import WAIT_SECONDS
from tests.support.images import BuiltImage, layered_image
from tests.support.stores import blob_file


@pytest.fixture
def image(client: Client, allowed: Path) -> BuiltImage:
    """An image in the store."""
    built = layered_image(2)
    client.images.import_archive(built.write_oci_tar(allowed / "image.tar"))
    return built


def _objects(plan: PrunePlan) -> list[PlannedObject]:
    """What a plan names; containerd lists in no order, so neither does a plan."""
    return sorted(plan.objects, key=lambda each: (each.kind, each.name, each.action))


def test_facts_say_who_is_asked(client: Client, case: Case, allowed: Path) -> None:
    """A caller that has the store at hand can compare."""
    facts, settings = client.facts, case.settings

    assert (facts.persist, facts.namespace) == (settings.persist, settings.namespace)
    assert (facts.snapshotter, facts.address) == (settings.snapshotter, settings.socket)
    assert facts.containerd == case.containerd.facts.version_text
    assert facts.content_root == case.containerd.facts.content_root
    assert facts.platform == case.images.platform
    assert facts.allowed_directories == (settings.layout.verifier, allowed)


def test_plan_is_looked_at_and_then_done(client: Client, case: Case, image: BuiltImage) -> None:
    """What was planned goes, and its space is back."""
    plan = client.prune.plan()

    direct = case.prune.plan()
    assert (_objects(plan), plan.needed, plan.holders) == (_objects(direct), direct.needed, ())
    assert client.images.exists(image.name)
    result = client.prune.execute(plan)
    assert result.removed == plan.objects
    assert result.size == plan.size > 0
    assert not client.images.exists(image.name)


def test_image_that_is_used_meanwhile_is_skipped(
    client: Client, case: Case, image: BuiltImage
) -> None:
    """With the reason why it stays."""
    plan = client.prune.plan()
    case.images.touch(image.name)

    result = client.prune.execute(plan)

    [skipped] = [each for each in result.skipped if each.planned.kind == "image"]
    assert skipped.planned.name == image.name
    assert skipped.planned.reason != skipped.reason
    assert "since the plan was made" in skipped.reason


@pytest.mark.parametrize("goal", [Goal(keep_at_most=0), Goal(min_free=1 << 60), Goal(min_free=0)])
def test_goal_is_understood_as_by_the_library(
    goal: Goal, client: Client, case: Case, image: BuiltImage
) -> None:
    """A goal of 0 bytes is one."""
    plan, direct = client.prune.plan(goal=goal), case.prune.plan(goal=goal)

    assert _objects(plan) == _objects(direct)
    assert {holder.name for holder in plan.holders} == {holder.name for holder in direct.holders}
    assert (plan.missing > 0) == (direct.missing > 0)


@pytest.mark.parametrize("scope", Scope)
def test_every_scope_selects_what_it_does_in_the_library(
    scope: Scope, client: Client, case: Case, image: BuiltImage, tmp_path: Path
) -> None:
    """Pins go by filter only, images by themselves."""
    (tmp_path / "blob").write_bytes(b"pinned")
    client.blobs.ingest(tmp_path / "blob")
    for texts in ([], ["until=1s"], ["label=none"]):
        selection = parse_selection(texts, now=case.now(), scope=scope)
        plan, direct = client.prune.plan(selection), case.prune.plan(selection)
        assert _objects(plan) == _objects(direct)


def test_plan_of_somebody_else_is_not_done(client: Client, case: Case, image: BuiltImage) -> None:
    """One of the library has no id, and one that was forgotten has to be made anew."""
    with pytest.raises(UsageError):
        client.prune.execute(case.prune.plan())
    forgotten = replace(client.prune.plan(), plan_id="forgotten")
    with pytest.raises(NotFoundError, match="plan"):
        client.prune.execute(forgotten)


def test_account_is_the_librarys(client: Client, case: Case, image: BuiltImage) -> None:
    """Parts, images and file systems, and progress on the way."""
    told: list[str] = []

    class _Watcher:
        def start(self, action: str, item: str, total: int | None, unit: str = "B") -> None:
            told.append(action)

        def advance(self, action: str, item: str, amount: int) -> None:
            pass

        def finish(self, action: str, item: str) -> None:
            pass

    usage, direct = client.usage.measure(progress=_Watcher()), case.usage.measure()

    assert usage.images == direct.images
    assert [(row.owner, row.part) for row in usage.entries] == [
        (row.owner, row.part) for row in direct.entries
    ]
    assert [system.path for system in usage.file_systems] == [
        system.path for system in direct.file_systems
    ]
    assert set(told) <= {"measure"}


def test_explanations_are_the_librarys(client: Client, case: Case, image: BuiltImage) -> None:
    """Chains and roots."""
    layer = image.layers[0].digest

    assert client.why.explain(layer) == case.why.explain(layer)
    with pytest.raises(NotFoundError):
        client.why.explain(str(Digest.of(b"absent")))


def test_check_finds_and_repairs(client: Client, case: Case, image: BuiltImage) -> None:
    """What is wrong comes with all that the library says of it."""
    path = blob_file(case.backing, Digest.parse(image.layers[0].digest))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)

    found = client.check_store(read_data=True)
    assert found.findings == case.check_store(read_data=True).findings
    assert found.scrub is not None
    assert found.scrub.complete
    [finding] = found.findings
    assert (finding.problem, finding.images) == (Problem.BLOB_CONTENT, (image.name,))
    fixed = client.check_store(read_data=True, fix=True)
    assert any(outcome.done for outcome in fixed.repaired)


def test_recovery_and_collection_come_back(client: Client, image: BuiltImage) -> None:
    """Nothing that is referred to goes."""
    client.recover()
    client.collect_garbage()

    assert client.check_store().findings == ()


def test_events_are_told_until_somebody_stops_it(
    client: Client, image: BuiltImage, allowed: Path
) -> None:
    """Of the kinds that were asked for, whoever causes them."""
    cancel = Cancellation()
    heard: list[tuple[EventKind, str]] = []
    listening = threading.Event()

    def listen() -> None:
        with client.events.subscribe(cancel, kinds=[EventKind.IMAGE_CREATED]) as events:
            listening.set()
            for event in events:
                heard.append((event.kind, event.object))
                cancel.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(WAIT_SECONDS)
    client.images.tag(image.name, "example.com/told:1")
    thread.join(WAIT_SECONDS)

    assert not thread.is_alive()
    assert heard == [(EventKind.IMAGE_CREATED, "example.com/told:1")]
