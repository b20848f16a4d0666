"""The main job on the command line: stable keys, identifiers for pipes, statuses."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cas.model.settings import Settings
from tests.cli.conftest import RunCas
from tests.support.images import BuiltImage, busybox_image, layered_image
from tests.support.volumes import volume_name

BLOB_KEYS = ["digest", "size", "media_type", "pinned", "created", "labels"]
IMAGE_KEYS = ["name", "digest", "media_type", "target_size", "created", "updated", "labels"]
VOLUME_KEYS = [
    "name",
    "state",
    "problem",
    "rootfs",
    "image",
    "root_digest",
    "manifest_digest",
    "chain_id",
    "snapshot_key",
    "snapshotter",
    "read_only",
    "created",
    "disk",
]


def _name() -> str:
    return str(volume_name())


@pytest.fixture
def image(cas: RunCas, tmp_path: Path) -> BuiltImage:
    """A runnable image in the store."""
    built = busybox_image()
    result = cas("image", "import", built.write_oci_tar(tmp_path / "image.tar"))
    assert (result.status, result.out) == (0, f"{built.name}\n"), result.err
    return built


def test_blob_commands_agree_with_the_file(cas: RunCas, tmp_path: Path) -> None:
    """A file goes in, is listed, inspected, read back, and removed."""
    data = b"content of a blob\n" * 1000
    source = tmp_path / "source"
    source.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"

    assert cas("blob", "ingest", "--media-type", "text/plain", source).out == f"{digest}\n"
    assert cas("blob", "ls", "-q", "--filter", "media-type=text/plain").out == f"{digest}\n"
    [listed] = json.loads(cas("blob", "ls", "--json", "--filter", "media-type=text/plain").out)
    assert list(listed) == BLOB_KEYS
    assert (listed["digest"], listed["size"], listed["pinned"]) == (digest, len(data), True)
    assert json.loads(cas("blob", "inspect", digest).out) == [listed]
    assert cas("blob", "cat", digest).out.encode() == data
    assert cas("blob", "exists", digest).status == 0
    assert cas("blob", "rm", digest).status == 0
    assert cas("blob", "exists", digest).status == 3
    assert cas("blob", "rm", digest).status == 3
    assert cas("blob", "rm", "--ignore", digest).status == 0


def test_blob_missing_prints_only_what_is_absent(cas: RunCas, tmp_path: Path) -> None:
    """One call tells which of many digests have to be fetched."""
    source = tmp_path / "source"
    source.write_bytes(b"present")
    present = cas("blob", "ingest", source).out.strip()
    absent = f"sha256:{'0' * 64}"

    assert cas("blob", "missing", present, absent).out == f"{absent}\n"
    assert json.loads(cas("blob", "missing", present, "--json").out) == []
    assert json.loads(cas("blob", "missing", absent, "--json").out) == [{"digest": absent}]


def test_blob_ingest_of_many_prints_digests_in_order(cas: RunCas, tmp_path: Path) -> None:
    """Line n belongs to file n, whichever was done first."""
    paths = []
    for number in range(20):
        path = tmp_path / str(number)
        path.write_bytes(bytes([number]) * (1 + number * 4096))
        paths.append(path)

    lines = cas("blob", "ingest", *paths).out.split()

    assert lines == [f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]


def test_blob_commands_with_json_print_one_document_each(cas: RunCas, tmp_path: Path) -> None:
    """What prints names for pipes prints the same as a document."""
    source = tmp_path / "source"
    source.write_bytes(b"some content")
    absent = f"sha256:{'0' * 64}"

    [stored] = json.loads(cas("blob", "ingest", source, "--json").out)
    digest = stored["digest"]
    known = cas("blob", "exists", digest, "--json")
    unknown = cas("blob", "exists", absent, "--json")
    removal = cas("blob", "rm", absent, digest, "--json")
    ignored = cas("blob", "rm", "--ignore", absent, "--json")

    assert (stored["new"], stored["size"]) == (True, len(b"some content"))
    assert (known.status, json.loads(known.out)) == (0, {"digest": digest, "exists": True})
    assert (unknown.status, json.loads(unknown.out)) == (3, {"digest": absent, "exists": False})
    assert json.loads(removal.out) == [{"digest": digest, "removed": True}]
    assert (removal.status, json.loads(removal.err)["error"]["reference"]) == (3, "blob-not-found")
    assert (ignored.status, json.loads(ignored.out)) == (0, [{"digest": absent, "removed": False}])


def test_blob_ingest_that_fails_midway_prints_a_whole_document(cas: RunCas, tmp_path: Path) -> None:
    """What was stored before the failure was stored, and a program can read that."""
    source = tmp_path / "source"
    source.write_bytes(b"stored")

    result = cas("blob", "ingest", "--json", source, tmp_path / "nothing")

    assert (result.status, json.loads(result.err)["error"]["reference"]) == (3, "source-not-found")
    assert all(cas("blob", "exists", row["digest"]).status == 0 for row in json.loads(result.out))


def test_blob_ingest_with_wrong_digest_is_integrity(cas: RunCas, tmp_path: Path) -> None:
    """The message names both digests, and nothing became visible."""
    source = tmp_path / "source"
    source.write_bytes(b"something else")
    claimed = f"sha256:{'0' * 64}"

    result = cas("blob", "ingest", "--digest", claimed, source)

    assert result.status == 5
    assert claimed in result.err
    assert hashlib.sha256(b"something else").hexdigest() in result.err
    assert "[digest-mismatch]" in result.err
    assert cas("blob", "exists", claimed).status == 3


def test_blob_ingest_of_missing_file_is_not_found(cas: RunCas, tmp_path: Path) -> None:
    """A source that does not exist ends with 3 and its name."""
    result = cas("blob", "ingest", tmp_path / "nothing")

    assert (result.status, "[source-not-found]" in result.err) == (3, True)


def test_image_lists_have_documented_keys(cas: RunCas, image: BuiltImage) -> None:
    """Table, identifiers and JSON tell of the same image."""
    [listed] = json.loads(cas("image", "ls", "--json").out)

    assert list(listed) == IMAGE_KEYS
    assert (listed["name"], listed["digest"]) == (image.name, image.digest)
    assert cas("image", "ls", "-q").out == f"{image.name}\n"
    assert image.digest in cas("image", "ls").out
    [inspected] = json.loads(cas("image", "inspect", image.name).out)
    assert inspected["digest"] == image.digest


def test_image_names_can_be_given_moved_and_removed(cas: RunCas, image: BuiltImage) -> None:
    """Tag, exists and rm work on names only."""
    assert cas("image", "tag", image.name, "example.com/other:2").status == 0
    assert cas("image", "rm", image.name).status == 0
    assert cas("image", "exists", image.name).status == 3
    assert cas("image", "exists", "example.com/other:2").status == 0
    assert cas("image", "rm", image.name).status == 3


def test_image_commands_with_json_print_one_document_each(
    cas: RunCas, image: BuiltImage, tmp_path: Path
) -> None:
    """Names that are given, moved, asked for and removed come as documents."""
    other, archive = "example.com/other:2", tmp_path / "exported.tar"

    [imported] = json.loads(
        cas("image", "import", image.write_oci_tar(tmp_path / "again.tar"), "--json").out
    )
    tagged = json.loads(cas("image", "tag", image.name, other, "--json").out)
    exported = json.loads(cas("image", "export", other, "-o", archive, "--json").out)
    known = json.loads(cas("image", "exists", other, "--json").out)
    removal = cas("image", "rm", other, "no-such-image", "--json")
    ignored = json.loads(cas("image", "rm", "--ignore", other, "--json").out)

    assert list(imported) == list(tagged) == IMAGE_KEYS
    assert (imported["name"], tagged["name"]) == (image.name, other)
    assert exported == {"name": other, "output": str(archive), "format": "oci"}
    assert known == {"name": other, "exists": True}
    assert json.loads(removal.out) == [{"name": other, "removed": True}]
    assert (removal.status, json.loads(removal.err)["error"]["reference"]) == (3, "image-not-found")
    assert ignored == [{"name": other, "removed": False}]


def test_image_export_imports_again(cas: RunCas, image: BuiltImage, tmp_path: Path) -> None:
    """What export writes, import reads, with the same digest."""
    archive = tmp_path / "exported.tar"

    assert cas("image", "export", image.name, "-o", archive).status == 0
    assert cas("image", "rm", image.name).status == 0
    assert cas("image", "import", archive).out == f"{image.name}\n"

    [listed] = json.loads(cas("image", "ls", "--json").out)
    assert listed["digest"] == image.digest


def test_volume_life_on_the_command_line(
    cas: RunCas, image: BuiltImage, settings: Settings
) -> None:
    """Prepare, write, deactivate, activate, use, remove: data stays until the end."""
    name = _name()
    rootfs = settings.persist / "vault" / "volumes" / name / "rootfs"

    assert cas("volume", "prepare", name, "--image", image.name).out == f"{rootfs}\n"
    [inactive] = json.loads(cas("volume", "ls", "--json").out)
    assert list(inactive) == VOLUME_KEYS
    assert inactive["state"] == "inactive"
    assert cas("volume", "activate", name).out == f"{name}\n"
    (rootfs / "note").write_text("kept")
    assert cas("volume", "deactivate", name).status == 0
    assert not (rootfs / "note").exists()
    assert cas("volume", "activate", "--all").out == f"{name}\n"
    assert (rootfs / "note").read_text() == "kept"
    assert cas("volume", "prepare", name, "--image", image.name, "--activate").status == 0
    assert (rootfs / "note").read_text() == "kept"
    usage = json.loads(cas("volume", "usage", name, "--json").out)
    assert usage["own_bytes"] > 0
    assert usage["shared_bytes"] > 0
    assert cas("volume", "inspect", name).status == 0
    assert cas("volume", "rm", name).out == f"{name}\n"
    assert cas("volume", "ls", "-q").out == ""
    assert not rootfs.parent.exists()
    assert cas("volume", "rm", name).status == 3
    assert cas("volume", "rm", "--ignore", name).status == 0


def test_disk_life_on_the_command_line(cas: RunCas, settings: Settings, tmp_path: Path) -> None:
    """A bare blob becomes a disk, a blank one stands in clear, and both go; in both directories."""
    source = tmp_path / "disk"
    source.write_bytes(b"boot" + bytes(65536))
    [blob] = json.loads(cas("blob", "ingest", source, "--json").out)
    assert cas("image", "wrap", blob["digest"], "vm:1").out == "vm:1\n"
    copied, blank = _name(), _name()
    layout = settings.layout

    prepared = cas("volume", "prepare", copied, "--disk", "vm:1", "--size", "1MiB")
    assert (prepared.out, prepared.err) == (f"{layout.volumes / copied}\n", "")
    rounded = cas("volume", "prepare", blank, "--blank", "--size", "1000001B", "--clear")
    assert (rounded.status, "has 1000448 bytes, the 1000001 asked for" in rounded.err) == (0, True)

    listed = {row["name"]: row["disk"] for row in json.loads(cas("volume", "ls", "--json").out)}
    assert (listed[copied]["image"], listed[copied]["blob_digest"]) == ("vm:1", blob["digest"])
    assert listed[copied]["virtual_size"] == 1024 * 1024
    assert listed[blank]["path"] == str(layout.clear_volumes / blank)
    assert "(blank)" in cas("volume", "ls").out
    sizes = {row["name"]: row for row in json.loads(cas("df", "--json").out)["volumes"]}
    assert sizes[copied]["format"] == "raw"
    assert sizes[copied]["virtual_size"] == 1024 * 1024
    assert sizes[copied]["own_bytes"] == (layout.volumes / copied).stat().st_blocks * 512
    assert sizes[blank]["clear"] is True
    old = layout.volumes / f"{blank}.raw"
    old.touch()
    [foreign] = json.loads(cas("volume", "ls", "--foreign", "--json").out)
    assert foreign["path"] == str(old)
    old.unlink()
    assert cas("volume", "activate", "--all").status == 0
    assert (layout.volumes / copied).read_bytes().startswith(b"boot\0")
    assert json.loads(cas("volume", "usage", copied, "--json").out)["own_bytes"] > 0
    assert cas("volume", "rm", copied, blank).status == 0
    assert not (layout.volumes / copied).exists()
    assert not (layout.clear_volumes / blank).exists()


def test_check_reports_what_eve_has_named_and_leaves_it_alone(
    cas: RunCas, settings: Settings
) -> None:
    """A format in the name, in both places; not what else lies there, and also with --fix."""
    layout = settings.layout
    layout.clear_volumes.mkdir(parents=True, exist_ok=True)
    disk, clear = layout.volumes / f"{_name()}.qcow2", layout.clear_volumes / f"{_name()}.raw"
    container, other = layout.volumes / f"{_name()}.container", layout.volumes / "notes.raw"
    container.mkdir()
    for path in (disk, clear, other):
        path.write_bytes(b"of EVE")
    before = [path.lstat() for path in (disk, clear, container)]

    found = cas("check", "--json")
    fixed = cas("check", "--fix", "--json")

    findings = json.loads(found.out)["findings"]
    assert [row["object"] for row in findings] == [*sorted(map(str, (disk, container))), str(clear)]
    assert {(row["problem"], row["severity"], row["fixable"]) for row in findings} == {
        ("suffixed-volume", "warning", False)
    }
    assert json.loads(fixed.out) == {"findings": findings, "repaired": [], "scrub": None}
    assert (found.status, fixed.status) == (1, 1)
    assert [path.lstat() for path in (disk, clear, container)] == before
    for path in (disk, clear, other):
        path.unlink()
    container.rmdir()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "one of --image, --disk and --blank"),
        (("--image", "i", "--blank"), "one of --image, --disk and --blank"),
        (("--image", "i", "--clear"), "only disks can be clear volumes"),
        (("--image", "i", "--size", "1G"), "are for disks"),
        (("--image", "/a/alpine.tar"), "'cas image import'"),
        (("--disk", "./disk.img"), "'cas blob ingest'"),
        (("--blank",), "needs a size"),
        (("--blank", "--size", "1G", "--format", "vmdk"), "raw and qcow2"),
    ],
)
def test_volume_that_cannot_be_is_a_usage_error(
    cas: RunCas, options: tuple[str, ...], words: str
) -> None:
    """Nothing is asked of the store then."""
    result = cas("volume", "prepare", _name(), *options)

    assert result.status == 2
    assert words in result.err


@pytest.mark.parametrize(
    ("size", "status"),
    [("0", 2), ("8EiB", 2), ("99999999999999999999", 2), ("65TiB", 5), ("63TiB", 6)],
)
def test_disk_of_an_impossible_size_is_refused(cas: RunCas, size: str, status: int) -> None:
    """None at all, beyond any number, beyond the limit, beyond the disk."""
    result = cas("volume", "prepare", _name(), "--blank", "--size", size, "--format", "qcow2")

    assert result.status == status
    assert "Traceback" not in result.err
    assert cas("volume", "ls", "-q").out == ""


def test_volume_commands_with_json_print_one_document_each(cas: RunCas, image: BuiltImage) -> None:
    """Preparing, mounting, unmounting and removing come as documents."""
    name, absent = _name(), _name()

    prepared = json.loads(cas("volume", "prepare", name, "--image", image.name, "--json").out)
    activated = cas("volume", "activate", name, absent, "--json")
    everything = json.loads(cas("volume", "activate", "--all", "--json").out)
    deactivated = json.loads(cas("volume", "deactivate", name, "--json").out)
    removed = json.loads(cas("volume", "rm", "--ignore", name, absent, "--json").out)

    assert list(prepared) == VOLUME_KEYS
    assert json.loads(activated.out) == everything == [{"name": name, "state": "active"}]
    reference = json.loads(activated.err)["error"]["reference"]
    assert (activated.status, reference) == (3, "volume-not-found")
    assert deactivated == [{"name": name, "state": "inactive"}]
    assert removed == [{"name": name, "removed": True}, {"name": absent, "removed": False}]


def test_volume_snapshot_life_on_the_command_line(cas: RunCas, image: BuiltImage) -> None:
    """Taken, listed, returned to, removed; a document or names as asked for."""
    first, second = _name(), _name()
    for name in (first, second):
        cas("volume", "prepare", name, "--image", image.name)
    snapshot = ("volume", "snapshot")
    taken = json.loads(cas(*snapshot, "create", first, second, "--snapshot", "s1", "--json").out)
    assert [list(row) for row in taken] == [["volume", "snapshot", "created", "own_bytes"]] * 2
    assert cas("volume", "activate", first).status == 0
    data = Path(_rootfs(cas, first)) / "data"
    data.write_text("later")
    refused = cas(*snapshot, "rollback", first, "--snapshot", "s1")
    assert (refused.status, "[in-use]" in refused.err) == (4, True)
    assert cas(*snapshot, "rollback", first, "--snapshot", "s1", "--quiesced", "-q").out == "s1\n"
    assert not data.exists()
    assert cas(*snapshot, "ls", first, "-q").out == "s1\n"
    assert json.loads(cas(*snapshot, "ls", first, "--json").out) == [taken[0]]
    assert {row["volume"] for row in json.loads(cas(*snapshot, "ls", "--json").out)} >= {first}
    absent = cas(*snapshot, "rollback", first, "--snapshot", "s2")
    assert (absent.status, "[volume-snapshot-not-found]" in absent.err) == (3, True)
    removed = cas(*snapshot, "rm", first, second, "--snapshot", "s1", "--quiesced")
    assert removed.out == f"{first}\n{second}\n"
    assert cas(*snapshot, "rm", first, "--snapshot", "s1", "--quiesced").status == 3
    again = cas(*snapshot, "rm", first, "--snapshot", "s1", "--ignore", "--json")
    assert json.loads(again.out) == [{"volume": first, "removed": False}]
    assert cas("check").status == 0
    assert cas("volume", "rm", first, second).status == 0


def _rootfs(cas: RunCas, name: str) -> str:
    [document] = json.loads(cas("volume", "inspect", name).out)
    return str(document["rootfs"])


def test_volume_name_with_another_image_is_conflict(
    cas: RunCas, image: BuiltImage, tmp_path: Path
) -> None:
    """An existing volume is never remade from another image."""
    other = layered_image()
    cas("image", "import", other.write_oci_tar(tmp_path / "other.tar"))
    name = _name()
    cas("volume", "prepare", name, "--image", image.name)

    result = cas("volume", "prepare", name, "--image", other.name)

    assert (result.status, "[volume-conflict]" in result.err) == (4, True)
    assert "generation" in result.err
    assert cas("volume", "rm", name).status == 0


def test_volume_in_use_is_not_removed_without_force(
    cas: RunCas, image: BuiltImage, settings: Settings
) -> None:
    """A process inside keeps the volume; its pid is named."""
    name = _name()
    rootfs = Path(cas("volume", "prepare", name, "--image", image.name, "--activate").out.strip())
    inside = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        cwd=rootfs,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert inside.stdout is not None
    inside.stdout.readline()
    try:
        refused = cas("volume", "rm", name)
        assert (refused.status, "[in-use]" in refused.err) == (4, True)
        assert str(inside.pid) in refused.err
        assert cas("image", "rm", image.name).status == 4
    finally:
        inside.communicate(b"")
    assert cas("volume", "rm", name).status == 0


def test_listing_into_a_closed_pipe_is_silent(cas: RunCas, settings: Settings) -> None:
    """A reader that leaves early gets no complaint."""
    script = "import sys; from cas.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "layout", "show", "--json"]
    process = subprocess.Popen(
        command,
        env={"PYTHONPATH": ":".join(sys.path), "CAS_PERSIST": str(settings.persist)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()

    _, stderr = process.communicate()

    assert stderr == b""


def test_version_with_json_names_containerd(cas: RunCas) -> None:
    """The versions of both programs are told."""
    document = json.loads(cas("version", "--json").out)

    assert list(document) == [
        *("cas", "containerd", "socket", "content_root", "snapshotter", "service")
    ]
    assert document["containerd"]


def test_prune_without_terminal_needs_force(
    cas: RunCas, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dry run tells what would go, a bare run refuses, --force does it."""
    planned = json.loads(cas("image", "prune", "--dry-run", "--json").out)
    assert [each["name"] for each in planned["objects"] if each["kind"] == "image"] == [image.name]
    assert cas("image", "exists", image.name).status == 0

    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert cas("image", "prune").status == 2
    assert cas("image", "exists", image.name).status == 0

    done = json.loads(cas("image", "prune", "--force", "--json").out)
    assert {each["name"] for each in done["objects"]} == {
        each["name"] for each in planned["objects"]
    }
    assert done["size"] == planned["size"] > 0
    assert cas("image", "exists", image.name).status == 3


def test_prune_goal_out_of_reach_says_what_holds_the_rest(cas: RunCas, image: BuiltImage) -> None:
    """A missed goal ends with 6 and names the holders."""
    name = _name()
    cas("volume", "prepare", name, "--image", image.name)

    result = cas("prune", "--force", "--keep-at-most", "1kB", "--json")

    document = json.loads(result.out)
    assert result.status == 6
    assert document["missing"] > 0
    assert name in [holder["name"] for holder in document["holders"]]
    assert cas("volume", "rm", name).status == 0


def test_df_adds_up_and_lists_owners(cas: RunCas, image: BuiltImage) -> None:
    """The parts are the total, and the store's content is among them."""
    document = json.loads(cas("df", "--json").out)

    assert document["size"] == sum(entry["size"] for entry in document["entries"])
    content = next(row for row in document["entries"] if row["part"] == "content")
    assert content["size"] >= sum(len(data) for data in image.blobs.values())
    assert [row["name"] for row in document["images"]] == [image.name]
    assert "total" in cas("df", "-v").out


def test_why_names_the_image_that_keeps_a_layer(cas: RunCas, image: BuiltImage) -> None:
    """The chain begins with what stays by itself and ends with the object."""
    layer = image.layers[1].digest

    [explanation] = json.loads(cas("why", layer, "--json").out)

    assert explanation["kept"] is True
    assert [link["name"] for link in explanation["chain"]] == [image.name, image.digest, layer]
    assert cas("why", f"sha256:{'0' * 64}").status == 3


def test_check_of_a_healthy_store_ends_with_nothing(cas: RunCas, image: BuiltImage) -> None:
    """A healthy store has no findings, also when everything is read."""
    result = cas("check", "--read-data", "--json")

    document = json.loads(result.out)
    assert (result.status, document["findings"]) == (0, [])
    assert document["scrub"]["complete"] is True


def test_check_names_what_a_changed_blob_hits_and_repairs_it(
    cas: RunCas, image: BuiltImage, settings: Settings, tmp_path: Path
) -> None:
    """Bad content is found by reading, set aside by --fix, and healed by importing again."""
    digest = image.layers[0].digest.removeprefix("sha256:")
    blob = settings.layout.case / "io.containerd.content.v1.content/blobs/sha256" / digest
    data = bytearray(blob.read_bytes())
    data[100] ^= 1
    blob.write_bytes(data)

    found = cas("check", "--read-data", "--json")
    fixed = cas("check", "--read-data", "--fix", "--json")
    again = cas("image", "import", image.write_oci_tar(tmp_path / "again.tar"))

    [finding] = json.loads(found.out)["findings"]
    assert (found.status, finding["problem"]) == (5, "blob-content")
    assert finding["images"] == [image.name]
    assert any(each["done"] for each in json.loads(fixed.out)["repaired"])
    assert again.status == 0
    assert cas("check", "--read-data").status == 0
