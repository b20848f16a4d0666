"""What the configuration file says arrives in the settings."""

from dataclasses import asdict
from pathlib import Path

from cas.cli.configuration import load_settings
from cas.model.limits import Limits


def test_allowed_directories_of_the_file_become_paths(tmp_path: Path) -> None:
    """Callers of the service may name files there; nowhere by default."""
    config = tmp_path / "config.toml"
    config.write_text('allowed_directories = ["/persist/vault/downloader", "/data"]\n')

    assert load_settings(config).allowed_directories == (
        Path("/persist/vault/downloader"),
        Path("/data"),
    )
    config.write_text("")
    assert load_settings(config).allowed_directories == ()


def test_every_limit_of_the_file_becomes_one_of_the_settings(tmp_path: Path) -> None:
    """None is known to the store and refused in the file."""
    wanted = {
        name: not value if isinstance(value, bool) else value - 1
        for name, value in asdict(Limits()).items()
    }
    lines = [f"{name} = {str(value).lower()}" for name, value in wanted.items()]
    config = tmp_path / "config.toml"
    config.write_text("\n".join(["[limits]", *lines]))

    assert asdict(load_settings(config).limits) == wanted


def test_example_of_the_readme_is_a_configuration(tmp_path: Path) -> None:
    """It can be copied as it stands."""
    text = (Path(__file__).parents[3] / "README.md").read_text()
    example = text.partition("```toml\n")[2].partition("```")[0]
    config = tmp_path / "config.toml"
    config.write_text(example)

    assert load_settings(config).persist == Path("/var/tmp/try")
