"""The tables of datastores in the configuration file."""

from pathlib import Path

import pytest

from cas.cli.configuration import load_settings
from cas.errors import ConfigError
from cas.model.datastore_settings import DatastoreSettings


def load(directory: Path, text: str) -> dict[str, DatastoreSettings]:
    path = directory / "config.toml"
    path.write_text(text)
    return dict(load_settings(path).download.datastores)


def test_table_of_a_datastore_is_read_by_its_prefix(tmp_path: Path) -> None:
    """Paths and names, and none of the secrets that they lead to."""
    read = load(
        tmp_path,
        '[datastore."s3://bucket/team"]\nendpoint = "https://s3.example.com"\nregion = "r"\n'
        'path_style = false\nusername = "key"\npassword_file = "/etc/cas/secret"\n',
    )

    assert read == {
        "s3://bucket/team": DatastoreSettings(
            endpoint="https://s3.example.com",
            region="r",
            path_style=False,
            username="key",
            password_file=Path("/etc/cas/secret"),
        )
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[datastore."sftp://h"]\nhostkeys = "/k"',
            ["hostkeys", "host_keys_file", "password_file"],
        ),
        ('[datastore."https://h"]\nregion = "r"', ["region", "headers_file"]),
        ('[datastore."https://h"]\nca_file = "ca.pem"', ["ca_file", "absolute"]),
        ('[datastore."https://h"]\nusername = 7', ["https://h", "username"]),
        ('[datastore."https://h"]\npassword_file = "/p"\ncredential_helper = "x"', ["leave one"]),
        ('[datastore."https://h/a"]\n[datastore."HTTPS://H:443/a/"]', ["same place", ":443"]),
        ('[datastore."docker://h"]\nusername = "u"', ["docker_config"]),
        ('[datastore."h"]\nusername = "u"', ["sftp"]),
        ('[datastore."https://h:port"]\nusername = "u"', ["no URL"]),
        ('[datastore."https://u:hunter2@h"]\n', ["username"]),
        ("[datastore]\nx = 1", ["datastore"]),
    ],
)
def test_table_that_makes_no_sense_is_named_with_what_is_possible(
    text: str, words: list[str], tmp_path: Path
) -> None:
    """An error of usage; what a URL hides stays hidden."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)

    assert caught.value.exit_code == 2
    for word in words:
        assert word in caught.value.message
    assert "hunter2" not in caught.value.message
