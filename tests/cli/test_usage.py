"""What a user gets wrong: documented status and reference, no traceback, nothing left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import RunCas

NAME = "7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34#0"


@pytest.mark.parametrize(
    "arguments",
    [
        ["volume", "prepare", "not-a-name", "--image", "x"],
        ["volume", "prepare", NAME.upper(), "--image", "x"],
        ["volume", "prepare", NAME],
        ["volume", "activate"],
        ["volume", "activate", "--all", NAME],
        ["blob", "inspect", "sha256:abc"],
        ["blob", "ingest"],
        ["blob", "ingest", "--digest", "sha256:" + "0" * 64, "one", "two"],
        ["blob", "ls", "--filter", "colour=red"],
        ["image", "ls", "--filter", "colour=red"],
        ["image", "prune", "--min-free", "much"],
        ["volume", "prepare", NAME, "--blank", "--size", "10"],
        ["--no-such-option"],
        ["no-such-noun"],
        ["--persist", "relative/path", "volume", "ls"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_end_with_usage_status(arguments: list[str], cas: RunCas) -> None:
    """Whatever is typed wrong ends with 2 and a hint, before anything is touched."""
    result = cas(*arguments)

    assert result.status == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    assert result.err


def test_usage_error_with_json_is_one_document(run_cas: RunCas) -> None:
    """Programs get the same error as one object on stderr."""
    result = run_cas("--json", "volume", "inspect", "nonsense")

    error = json.loads(result.err)["error"]
    assert (result.status, error["reference"], error["kind"]) == (2, "usage", "usage")


def test_absent_containerd_is_unavailable(run_cas: RunCas, tmp_path: Path) -> None:
    """Without a containerd the message says which socket, and what to run."""
    config = tmp_path / "config.toml"
    config.write_text("wait_seconds = 0.1\n")

    result = run_cas("--json", "--config", config, "--persist", tmp_path, "volume", "ls")

    error = json.loads(result.err)["error"]
    assert (result.status, error["reference"]) == (8, "containerd-unavailable")
    assert str(tmp_path) in error["message"]


def test_too_long_socket_path_names_the_way_out(run_cas: RunCas, tmp_path: Path) -> None:
    """A path that the kernel cannot take is said before anything is tried."""
    persist = tmp_path / ("x" * 120)

    result = run_cas("--persist", persist, "volume", "ls")

    assert result.status == 2
    assert "107" in result.err
    assert "--address" in result.err or "--persist" in result.err


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "unknown_key = 1",
        "workers = 'four'",
        "workers = 0",
        "allowed_directories = ['relative']",
        "allowed_directories = '/data'",
        'persist = "relative"',
        'service = "sometimes"',
        'service_address = "relative"',
        'persist = "/a/../b"',
        '[owners]\nking = "root"',
        "[limits]\nunknown = 1",
    ],
)
def test_wrong_configuration_is_refused(text: str, run_cas: RunCas, tmp_path: Path) -> None:
    """A configuration that is not understood is never half used."""
    config = tmp_path / "bad.toml"
    config.write_text(text)

    result = run_cas("--config", config, "volume", "ls")

    assert result.status == 2
    assert "[invalid-config]" in result.err
    assert any(
        word in result.err
        for word in (str(config), "workers", "persist", "owners", "service", "allowed_directories")
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("namespac = 'x'", "the unknown key 'namespac'; write 'namespace'"),
        ("[limits]\nblob_byte = 3", "'blob_byte' in [limits]; write 'blob_bytes'"),
        ("blob_bytes = 3", "'blob_bytes'; it belongs below [limits]"),
        ("[limits]\nnamespace = 'x'", "'namespace' in [limits]; it belongs above the first table"),
        ("[vault]\nqqq = 1", "'qqq' in [vault]; the keys there are provider, "),
    ],
)
def test_unknown_key_is_told_with_what_may_be_meant(
    text: str, words: str, run_cas: RunCas, tmp_path: Path
) -> None:
    """File, key, and the nearest name that is known."""
    config = tmp_path / "bad.toml"
    config.write_text(text)

    result = run_cas("--config", config, "volume", "ls")

    assert f"configuration file {config} has " in result.err
    assert words in result.err


def test_missing_configuration_file_is_refused(run_cas: RunCas, tmp_path: Path) -> None:
    """A file that was named must exist."""
    result = run_cas("--config", tmp_path / "none.toml", "volume", "ls")

    assert (result.status, "[invalid-config]" in result.err) == (2, True)
    assert "name another by --config or CAS_CONFIG" in result.err


def test_version_before_the_service_listens_says_what_to_start(
    run_cas: RunCas, tmp_path: Path
) -> None:
    """Nothing runs yet, which is no failure and must not be a riddle."""
    result = run_cas("--persist", tmp_path, "version")

    assert result.status == 0
    assert f"service     none of this store answers on {tmp_path}/run/cas.sock\n" in result.out
    assert "start it with `cas serve`" in result.err


def test_layout_check_says_how_to_repair_what_deviates(run_cas: RunCas, tmp_path: Path) -> None:
    """What the option repairs, and what only hands can."""
    assert run_cas("--persist", tmp_path, "layout", "init").status == 0
    good = run_cas("--persist", tmp_path, "layout", "check")
    (tmp_path / "checkpoint").chmod(0o777)
    (tmp_path / "vault-keys").rmdir()
    (tmp_path / "vault-keys").touch()

    bad = run_cas("--persist", tmp_path, "layout", "check")

    assert (good.status, good.err) == (0, "")
    assert bad.status == 9
    assert "`cas layout check --fix` creates what is missing" in bad.err
    assert f"put {tmp_path / 'vault-keys'} right by hand: not-a-directory" in bad.err


def test_store_without_layout_tells_to_make_one(run_cas: RunCas, tmp_path: Path) -> None:
    """A missing directory is an error, not a surprise."""
    result = run_cas("--persist", tmp_path, "blob", "ingest", "/etc/hostname")

    assert result.status == 9
    assert "cas layout init" in result.err


@pytest.mark.parametrize("directory", ["vault/case", "vault/volumes", "clear", "clear/volumes"])
def test_directory_of_the_store_that_is_a_link_is_refused(
    run_cas: RunCas, tmp_path: Path, directory: str
) -> None:
    """What is written there would end up elsewhere."""
    persist = tmp_path / "persist"
    assert run_cas("--persist", persist, "layout", "init").status == 0
    (persist / directory).rename(tmp_path / "elsewhere")
    (persist / directory).symlink_to(tmp_path / "elsewhere")
    result = run_cas("--persist", persist, "volume", "prepare", NAME, "--blank", "--size", "1MB")

    assert (result.status, "[layout]" in result.err) == (9, True), result.err
    assert f"{persist / directory} is not as" in result.err


def test_command_without_root_is_denied(tmp_path: Path) -> None:
    """Another user is told that root is needed."""
    # Imported as root, since the interpreter may lie where others cannot read.
    script = (
        "import os, sys, cas.app, cas.cli.configuration, cas.cli.volume;"
        "from cas.cli.main import main;"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534);"
        "sys.exit(main(sys.argv[1:]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, "--persist", tmp_path, "volume", "ls"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 9, done.stderr
    assert "root" in done.stderr
    assert "Traceback" not in done.stderr
