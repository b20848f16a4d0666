"""What the configuration file says arrives in the settings."""

from pathlib import Path

from cas.cli.configuration import load_settings


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
