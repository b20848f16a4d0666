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
_START = (
    "of 1.8 s of CPU in three processes, half is Python's start, of which the agents' lies beside "
    "the command's; hashing each byte twice is 0.4 s; a blob is renamed twice and its directories "
    "are synced before it is acknowledged"
)
_UNPACKING = (
    "unpacking, which containerd does, and syncing what it wrote take three quarters of it; the "
    "rest is the row of the pull alone"
)


def pulling(bench: Bench) -> Iterator[Row]:
    """Pull of a real image, to a volume that is unpacked and mounted, and to the store alone."""
    archive = image_archive(bench, zstd=False)
    name = f"pull an image of {archive.stat().st_size // MIB} MiB"
    volume, only = f"{name} to a mounted volume", f"{name}, not unpacked"
    ctr = Row(f"{volume}, ctr", "s", note=_UNPACKING)
    docker = Row(f"{volume}, docker mounts nothing", "s", note=_UNPACKING)
    skopeo = Row(f"{only}, skopeo", "s", note=_START)
    with ExitStack() as stack:
        address = stack.enter_context(_registry(bench.root / "registry"))
        reference = f"{address}/bench:1"
        _skopeo(bench, f"oci-archive:{archive}", f"docker://{reference}", "--dest-tls-verify=false")
        host = stack.enter_context(_docker(bench.root / "dockerd"))
        parent = _top_layer(bench, reference)
        jobs = [
            partial(_volume_by_cas, bench, reference, ctr),
            partial(_by_ctr, bench, reference, parent, ctr),
            partial(_by_docker, bench, reference, host, docker),
            partial(_image_by_cas, bench, reference, skopeo),
            partial(_by_skopeo, bench, reference, skopeo),
        ]
        for number in range(bench.runs):
            for job in jobs[:: -1 if number % 2 else 1]:
                job()
        docker.ours = ctr.ours
    yield from (ctr, docker, skopeo)


def _top_layer(bench: Bench, reference: str) -> str:
    """Pull once, unmeasured; gives the chain ID of the image's top layer."""
    namespace = bench.namespace()
    bench.cas("image", "pull", reference, namespace=namespace)
    with bench.open(namespace) as case:
        parent = str(case.images.resolve(reference).layers[-1].chain_id)
    forget_image(bench, namespace)
    return parent


def _volume_by_cas(bench: Bench, reference: str, row: Row) -> None:
    namespace, volume = bench.namespace(), new_name()
    words = ("volume", "prepare", volume, "--image", f"docker://{reference}", "--activate")
    row.ours.append(bench.timed(partial(bench.cas, *words, namespace=namespace)))
    bench.cas("volume", "deactivate", volume, namespace=namespace)
    forget_image(bench, namespace)


def _image_by_cas(bench: Bench, reference: str, row: Row) -> None:
    namespace = bench.namespace()
    pull = partial(bench.cas, "image", "pull", reference, namespace=namespace)
    row.ours.append(bench.timed(pull))
    forget_image(bench, namespace)


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


def _by_docker(bench: Bench, reference: str, host: str, row: Row) -> None:
    environment = {**bench.environment, "DOCKER_HOST": host}
    pull = partial(run, ["docker", "pull", "-q", reference], environment)
    row.theirs.append(bench.timed(pull))
    run(["docker", "rmi", reference], environment)


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
