"""Metrics as Prometheus sees them, over real sockets."""

import os
import select
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cas.daemon.metrics import Metrics, StoreSize
from cas.daemon.metrics_server import MetricsServer, open_metrics_server
from cas.errors import ConfigError, InUseError, StorageError
from cas.model.layout import Layout
from cas.store.guard import VaultGuard
from tests.support.daemon import WAIT_SECONDS

_NAME = "7d9f4a52-3c1e-4b8a-9f60-2d5e8c7b1a34"


class _UnixConnection(HTTPConnection):
    """HTTP to a path."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WAIT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_SECONDS)
        self.sock.connect(str(self._path))


def _scrape(path: Path) -> str:
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()


def _samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def path(metrics: Metrics, tmp_path: Path) -> Iterator[Path]:
    """Where they are served."""
    path = tmp_path / "metrics.sock"
    with open_metrics_server(str(path), metrics.registry, group=0):
        yield path
    assert not path.exists()


def test_calls_are_counted_by_method_and_code(metrics: Metrics, path: Path) -> None:
    """With their duration, and those that still run."""
    for code in ("OK", "OK", "NOT_FOUND"):
        metrics.call_began("/cas.v1.Blobs/Get")
        metrics.call_ended("/cas.v1.Blobs/Get", code, 0.02)
    metrics.call_began("/cas.v1.Blobs/Get")
    samples = _samples(_scrape(path))
    assert samples["cas_rpc_calls_total", "/cas.v1.Blobs/Get", "OK"] == 2
    assert samples["cas_rpc_calls_total", "/cas.v1.Blobs/Get", "NOT_FOUND"] == 1
    assert samples["cas_rpc_seconds_count", "/cas.v1.Blobs/Get"] == 3
    assert samples["cas_rpc_seconds_bucket", "/cas.v1.Blobs/Get", "0.025"] == 3
    assert samples["cas_rpc_seconds_bucket", "/cas.v1.Blobs/Get", "0.01"] == 0
    assert samples["cas_rpc_running", "/cas.v1.Blobs/Get"] == 1


def test_containerd_recovery_and_ingested_bytes_are_counted(metrics: Metrics, path: Path) -> None:
    """What an operator asks about after a bad night."""
    metrics.containerd_is_up(True)
    metrics.containerd_ended()
    metrics.recovered("done")
    metrics.recovered("failed")
    metrics.ingested(1000)
    samples = _samples(_scrape(path))
    assert samples["cas_containerd_up",] == 1
    assert samples["cas_containerd_restarts_total",] == 1
    assert samples["cas_recoveries_total", "done"] == 1
    assert samples["cas_recoveries_total", "failed"] == 1
    assert samples["cas_ingested_bytes_total",] == 1000
    assert samples["process_resident_memory_bytes",] > 0


def test_store_is_told_without_asking_containerd(
    metrics: Metrics, path: Path, tmp_path: Path
) -> None:
    """From directory entries; what cannot be seen is left out."""
    layout = Layout(tmp_path)
    blobs = tmp_path / "blobs"
    (layout.volumes / f"{_NAME}#0").mkdir(parents=True)
    layout.case.mkdir()
    blobs.mkdir()
    (blobs / "one").write_bytes(b"1")
    (blobs / "three").write_bytes(b"333")
    metrics.watch(layout, VaultGuard(layout, require_encryption=False), blobs)
    samples = _samples(_scrape(path))
    assert samples["cas_volumes",] == 1
    assert samples["cas_blobs",] == 2
    assert samples["cas_blob_bytes",] == 4
    assert samples["cas_free_bytes",] > 0


def test_store_size_of_an_absent_directory_is_nothing(tmp_path: Path) -> None:
    """containerd makes it with the first blob."""
    assert StoreSize.measure(tmp_path / "none") == StoreSize(0, 0)


def test_store_size_while_a_blob_goes_counts_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was listed and is gone by the time it is looked at ends nothing."""
    for name in ("one", "two", "three"):
        (tmp_path / name).write_bytes(b"12345")
    scandir = os.scandir

    @contextmanager
    def scan(directory: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(directory) as entries:
            listed = list(entries)
        Path(listed[0]).unlink()
        yield listed

    monkeypatch.setattr(os, "scandir", scan)
    assert StoreSize.measure(tmp_path) == StoreSize(2, 10)


def test_server_at_a_path_is_for_the_group_only(path: Path) -> None:
    """Members of volumemgr may look, others not."""
    assert path.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_server_at_a_port_answers(metrics: Metrics, host: str) -> None:
    """Where Prometheus comes over the network of the machine."""
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family) as free:
        free.bind((host.strip("[]"), 0))
        port = free.getsockname()[1]
    with (
        open_metrics_server(f"{host}:{port}", metrics.registry, group=0),
        urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=WAIT_SECONDS) as answer,
    ):
        assert "cas_containerd_up" in answer.read().decode()


def test_server_on_a_stale_socket_takes_its_place(metrics: Metrics, tmp_path: Path) -> None:
    """A killed service leaves its socket."""
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with open_metrics_server(str(path), metrics.registry, group=0):
        assert "cas_containerd_up" in _scrape(path)


def test_server_on_a_path_in_use_is_refused(metrics: Metrics, path: Path, tmp_path: Path) -> None:
    """Neither another server nor a file is put out of the way."""
    with (
        pytest.raises(InUseError, match="serves at"),
        open_metrics_server(str(path), metrics.registry, group=0),
    ):
        pass
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(InUseError, match="no socket"),
        open_metrics_server(str(tmp_path / "file"), metrics.registry, group=0),
    ):
        pass
    assert "cas_containerd_up" in _scrape(path)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("nonsense", ConfigError),
        ("localhost:", ConfigError),
        (":port", ConfigError),
        ("relative/path", ConfigError),
        ("127.0.0.1:99999", StorageError),
        ("/nowhere/at/all", StorageError),
    ],
)
def test_server_at_an_impossible_address_says_so(
    metrics: Metrics, address: str, error: type[Exception]
) -> None:
    """The address is in the message."""
    with (
        pytest.raises(error, match=address),
        open_metrics_server(address, metrics.registry, group=0),
    ):
        pass


def test_server_at_a_port_in_use_says_so(metrics: Metrics) -> None:
    """As at a path."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with (
            pytest.raises(InUseError, match=address),
            open_metrics_server(address, metrics.registry, group=0),
        ):
            pass


def _drip(path: Path, ended: threading.Event) -> None:
    """Send a byte of a request now and then, as long as the server takes them."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with suppress(OSError):  # the server hangs up, whatever is under way then
            client.sendall(b"GET /metrics HTTP/1.0\r\nX: ")
            while not select.select([client], [], [], 0.05)[0]:
                client.sendall(b"x")
    ended.set()


def _start_dripping(path: Path) -> threading.Event:
    ended = threading.Event()
    threading.Thread(target=_drip, args=(path, ended), daemon=True).start()
    return ended


def test_client_that_drips_does_not_stop_the_others(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """His time is over however often a byte comes; and no traceback tells of it."""
    monkeypatch.setattr("cas.daemon.metrics_server._REQUEST_SECONDS", 0.3)
    gone = _start_dripping(path)
    assert gone.wait(WAIT_SECONDS)
    monkeypatch.setattr("cas.daemon.metrics_server._REQUEST_SECONDS", 3600)
    assert "cas_containerd_up" in _scrape(path)
    assert "Traceback" not in capfd.readouterr().err


def test_client_that_drips_does_not_keep_the_server_from_ending(
    metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that is being served is shut down first."""
    monkeypatch.setattr("cas.daemon.metrics_server._REQUEST_SECONDS", 3600)
    path = tmp_path / "metrics.sock"
    served = threading.Event()
    handled = MetricsServer.process_request

    def tell(server: MetricsServer, request: object, address: object) -> None:
        served.set()
        handled(server, request, address)

    monkeypatch.setattr(MetricsServer, "process_request", tell)
    with open_metrics_server(str(path), metrics.registry, group=0):
        gone = _start_dripping(path)
        assert served.wait(WAIT_SECONDS)
    assert gone.wait(WAIT_SECONDS)


def test_client_that_leaves_in_the_middle_of_a_line_is_no_traceback(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever may connect could fill the log otherwise."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /met")
    assert "cas_containerd_up" in _scrape(path)
    assert "Traceback" not in capfd.readouterr().err
