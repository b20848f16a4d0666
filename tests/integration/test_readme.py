"""The README's Python examples, run as they stand."""

import contextlib
import io
import re
from pathlib import Path

from cas.app import Case
from cas.model.settings import Settings
from tests.support.images import busybox_image
from tests.support.serving import server_of

README = Path(__file__).parents[2] / "README.md"


def _examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def test_python_example_of_the_readme_runs(settings: Settings, tmp_path: Path) -> None:
    """What the README shows does what it says, but for the two paths that differ here."""
    image = busybox_image(name="docker.io/library/alpine:3.20")
    archive = image.write_oci_tar(tmp_path / "alpine.tar")
    [example, _] = _examples()
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


def test_python_example_of_the_client_runs(settings: Settings, tmp_path: Path) -> None:
    """The client brings an image in, and tells it."""
    image = busybox_image()
    archive = image.write_oci_tar(tmp_path / "alpine.tar")
    socket = settings.layout.run / f"{settings.namespace}.sock"
    [_, example] = _examples()
    assert 'Path("/run/cas/cas.sock")' in example
    script = example.replace('Path("/run/cas/cas.sock")', "socket").replace(
        'Path("alpine.tar")', "archive"
    )
    output = io.StringIO()

    with (
        Case.open(settings) as case,
        server_of(case, socket),
        contextlib.redirect_stdout(output),
    ):
        exec(compile(script, "README.md", "exec"), {"socket": socket, "archive": archive})

    assert output.getvalue().startswith(f"example.com/alpine:edge {image.digest} ")
