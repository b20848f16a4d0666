"""The configuration of an embedded containerd."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.containerd.config import render
from cas.containerd.place import Place
from cas.containerd.socket_path import MAX_SOCKET_BYTES, check_socket_path
from cas.errors import SocketPathError
from cas.model.settings import Settings


def _parsed(settings: Settings) -> dict[str, Any]:
    return tomllib.loads(render(settings))


def test_render_paths_are_those_of_the_layout() -> None:
    """Root, state and socket are where the rest of the program looks for them."""
    settings = Settings(persist=Path("/p"))
    config = _parsed(settings)

    assert config["root"] == "/p/vault/case"
    assert config["state"] == "/p/run/state"
    assert config["grpc"]["address"] == str(settings.socket)
    assert config["version"] == 2


def test_render_listens_on_unix_sockets_only() -> None:
    """Nothing of the store can be reached over the network, and nothing is imported."""
    config = _parsed(Settings(persist=Path("/p")))

    assert config["imports"] == []
    assert "metrics" not in config
    assert "debug" not in config
    assert not any(key.startswith("tcp") for key in config["grpc"])


def test_render_required_and_disabled_plugins_do_not_overlap() -> None:
    """A plugin that is both would keep containerd from starting."""
    config = _parsed(Settings(persist=Path("/p")))

    assert not set(config["required_plugins"]) & set(config["disabled_plugins"])
    assert "io.containerd.snapshotter.v1.overlayfs" in config["required_plugins"]
    assert "io.containerd.grpc.v1.cri" in config["disabled_plugins"]


def test_render_other_snapshotter_is_required_instead_of_overlayfs() -> None:
    """The configured snapshotter is on, the others are off."""
    config = _parsed(Settings(persist=Path("/p"), snapshotter="native"))

    assert "io.containerd.snapshotter.v1.native" in config["required_plugins"]
    assert "io.containerd.snapshotter.v1.native" not in config["disabled_plugins"]
    assert "io.containerd.snapshotter.v1.overlayfs" in config["disabled_plugins"]


def test_render_for_an_old_store_collects_nothing_and_shares_no_path() -> None:
    """What nobody refers to may be all that is left of somebody's data."""
    settings = Settings(persist=Path("/p"))
    own, old = (
        tomllib.loads(render(settings, place))
        for place in (None, Place.of_old_store(settings, Path("/p/containerd")))
    )
    collector = old["plugins"]["io.containerd.gc.v1.scheduler"]
    assert (collector["mutation_threshold"], collector["deletion_threshold"]) == (0, 0)
    assert collector["startup_delay"] == "87600h"
    assert old["root"] == "/p/containerd"
    paths = {each["state"] for each in (own, old)} | {
        each[part]["address"] for each in (own, old) for part in ("grpc", "ttrpc")
    }
    assert len(paths) == 6


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1))
def test_render_any_path_survives_toml(name: str) -> None:
    """Quotes, backslashes and line ends in a path stay part of it."""
    settings = Settings(persist=Path("/p", name))
    assert _parsed(settings)["root"] == str(settings.layout.case)


def test_check_socket_path_counts_bytes_up_to_the_kernels_limit() -> None:
    """107 bytes pass, 108 do not, and the message names the ways out."""
    check_socket_path(Path("/" + "s" * (MAX_SOCKET_BYTES - 1)))
    with pytest.raises(SocketPathError, match=r"--persist.*--address"):
        check_socket_path(Path("/" + "s" * MAX_SOCKET_BYTES))
    with pytest.raises(SocketPathError):
        check_socket_path(Path("/" + "ä" * (MAX_SOCKET_BYTES // 2 + 1)))
