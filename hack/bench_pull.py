"""The row of pulls: from a registry on this machine to a mounted volume, beside other tools."""

__all__ = ["pulling"]

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from hack.bench_setting import MIB, Bench, Row, forget_image, image_archive, new_name, run

_START_SECONDS = 60.0
_NOTE = (
    "three processes start Python, the command and two agents: 4 s of 9 s with 44 MiB on a busy "
    "machine; the rest was not taken apart: each byte is hashed by the verifier and by the store, "
    "and files, blobs, layers and volume are synced before each is acknowledged"
)
_NO_UNPACK = "skopeo copies the blobs into a directory; it neither unpacks nor mounts anything"


def pulling(bench: Bench) -> Iterator[Row]:
    """Pull of a real image to a volume that is unpacked and mounted."""
    archive = image_archive(bench)
    name = f"pull an image of {archive.stat().st_size // MIB} MiB to a mounted volume"
    ctr = Row(f"{name}, ctr", "s", note=_NOTE)
    skopeo = Row(f"{name}, skopeo", "s", note=f"{_NO_UNPACK}; {_NOTE}")
    docker = Row(
        f"{name}, docker", "s", note=f"docker pulls and unpacks, and mounts nothing; {_NOTE}"
    )
    with ExitStack() as stack:
        address = stack.enter_context(_registry(bench.root / "registry"))
        reference = f"{address}/bench:1"
        _skopeo(bench, f"oci-archive:{archive}", f"docker://{reference}", "--dest-tls-verify=false")
        host = stack.enter_context(_docker(bench.root / "dockerd"))
        for _ in range(bench.runs):
            parent = _by_cas(bench, reference, ctr)
            skopeo.ours = docker.ours = ctr.ours
            _by_ctr(bench, reference, parent, ctr)
            _by_skopeo(bench, reference, skopeo)
            environment = {**bench.environment, "DOCKER_HOST": host}
            pull = partial(run, ["docker", "pull", "-q", reference], environment)
            docker.theirs.append(bench.timed(pull))
            run(["docker", "rmi", reference], environment)
    yield from (ctr, skopeo, docker)


def _by_cas(bench: Bench, reference: str, row: Row) -> str:
    """Measure ours; gives the chain ID of the image's top layer."""
    namespace, volume = bench.namespace(), new_name()
    words = ("volume", "prepare", volume, "--image", f"docker://{reference}", "--activate")
    row.ours.append(bench.timed(partial(bench.cas, *words, namespace=namespace)))
    with bench.open(namespace) as case:
        parent = str(case.images.resolve(reference).layers[-1].chain_id)
    bench.cas("volume", "deactivate", volume, namespace=namespace)
    forget_image(bench, namespace)
    return parent


def _by_ctr(bench: Bench, reference: str, parent: str, row: Row) -> None:
    namespace, target = bench.namespace(), bench.root / "pulled"
    target.mkdir(exist_ok=True)

    def pull() -> None:
        bench.ctr("images", "pull", "--plain-http", reference, namespace=namespace)
        script = bench.ctr(
            "snapshots", "prepare", "--target", target, "pulled", parent, namespace=namespace
        )
        subprocess.run(["sh", "-c", script], check=True)

    row.theirs.append(bench.timed(pull))
    subprocess.run(["umount", target], check=True)
    forget_image(bench, namespace)


def _by_skopeo(bench: Bench, reference: str, row: Row) -> None:
    target = bench.root / "copied"
    copy = partial(
        _skopeo, bench, f"docker://{reference}", f"oci:{target}:1", "--src-tls-verify=false"
    )
    row.theirs.append(bench.timed(copy))
    run(["rm", "-rf", str(target)], bench.environment)


def _skopeo(bench: Bench, source: str, target: str, option: str) -> None:
    command = ["skopeo", "copy", "--quiet", "--insecure-policy", option, source, target]
    run(command, bench.environment)


@contextmanager
def _registry(directory: Path) -> Iterator[str]:
    """Run Debian's docker-registry; gives its address."""
    directory.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "content")}},
        "http": {"addr": address},
    }
    (directory / "config.json").write_text(json.dumps(config))  # JSON is YAML
    url = f"http://{address}/v2/"
    command = ["docker-registry", "serve", str(directory / "config.json")]
    with _running(command, directory / "log", ["curl", "-sf", url]):
        yield address


@contextmanager
def _docker(directory: Path) -> Iterator[str]:
    """Run dockerd and a containerd of its own, out of the way of the network; gives its address."""
    directory.mkdir()
    plain = directory / "containerd.toml"
    plain.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    socket_ = directory / "containerd.sock"
    host = f"unix://{directory}/docker.sock"
    containerd = ["containerd", "--config", str(plain), "--root", str(directory / "containerd"),
                  "--state", str(directory / "state"), "--address", str(socket_)]  # fmt: skip
    dockerd = ["dockerd", "--containerd", str(socket_), "--data-root", str(directory / "data"),
               "--exec-root", str(directory / "exec"), "--host", host,
               "--pidfile", str(directory / "pid"), "--bridge", "none",
               "--iptables=false"]  # fmt: skip
    asked = ["ctr", "--address", str(socket_), "version"]
    with (
        _running(containerd, directory / "containerd.log", asked),
        _running(dockerd, directory / "log", ["docker", "--host", host, "version"]),
    ):
        yield host
    namespace = directory / "exec/netns/default"  # dockerd leaves it mounted
    if os.path.ismount(namespace):
        subprocess.run(["umount", namespace], check=True)


@contextmanager
def _running(command: list[str], log: Path, probe: list[str]) -> Iterator[None]:
    """Run a server for a block, which begins when the probe succeeds."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait(lambda: subprocess.run(probe, capture_output=True, check=False).returncode == 0, log)
        yield
    finally:
        process.terminate()
        process.wait()


def _wait(ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: a server does not start: {log.read_text()[-500:]}")
        time.sleep(0.1)
