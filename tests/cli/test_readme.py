"""The first lines of the README, typed into a shell as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.daemon import WAIT_SECONDS, persist_directory
from tests.support.images import busybox_image

README = Path(__file__).parents[2] / "README.md"


def _lines() -> list[str]:
    [block] = re.findall(
        r"^## Five lines that work\n\n((?:    .*\n)+)", README.read_text(), re.MULTILINE
    )
    return [line.removeprefix("    ") for line in block.splitlines()]


def test_five_lines_of_the_readme_work(containerd_binary: str, tmp_path: Path) -> None:
    """A shell with nothing else in it ends up inside of the volume."""
    busybox_image().write_oci_tar(tmp_path / "alpine.tar")
    *commands, shell = _lines()
    assert (len(commands), shell.endswith("/bin/sh")) == (4, True)
    with persist_directory() as persist:
        config = tmp_path / "config.toml"
        owners = "".join(f'{role} = "root"\n' for role in ("downloader", "verifier", "volumemgr"))
        config.write_text(
            f'containerd_binary = "{containerd_binary}"\nwait_seconds = {WAIT_SECONDS}\n'
            f"[owners]\n{owners}"
        )
        script = "\n".join(
            ["trap 'kill %1; wait' EXIT", *commands, f"{shell} -c 'echo $((6 * 7))'"]
        )
        done = subprocess.run(
            [
                "bash",
                "-ec",
                script.replace("/persist/", f"{persist}/").replace("/run/", f"{persist}/"),
            ],
            cwd=tmp_path,
            env={
                "CAS_PERSIST": str(persist),
                "CAS_CONFIG": str(config),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "42"
