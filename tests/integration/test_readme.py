"""The README's Python example, run as it stands."""

import contextlib
import io
import re
from pathlib import Path

from cas.app import Case
from cas.model.settings import Settings
from tests.support.images import busybox_image

README = Path(__file__).parents[2] / "README.md"


def _example() -> str:
    [example] = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return str(example)


def test_python_example_of_the_readme_runs(settings: Settings, tmp_path: Path) -> None:
    """What the README shows does what it says, but for the two paths that differ here."""
    image = busybox_image(name="docker.io/library/alpine:3.20")
    archive = image.write_oci_tar(tmp_path / "alpine.tar")
    example = _example()
    assert 'Settings(persist=Path("/persist"))' in example
    assert 'Path("alpine.tar")' in example
    script = example.replace('Settings(persist=Path("/persist"))', "settings").replace(
        'Path("alpine.tar")', "archive"
    )
    output = io.StringIO()

    with contextlib.redirect_stdout(output):
        exec(compile(script, "README.md", "exec"), {"settings": settings, "archive": archive})

    with Case.open(settings) as case:
        [volume] = case.volumes.iter_volumes()
        assert (volume.rootfs / "etc/hostname").read_text() == "edge\n"
        assert all(digest in output.getvalue() for digest in image.blobs)
