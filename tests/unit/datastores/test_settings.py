"""Settings of a datastore on their way to another process."""

import pytest

from cas.datastores.secret import Secret
from cas.datastores.settings import (
    Credentials,
    Mirror,
    Proxies,
    SourceSettings,
    TransportSettings,
    decode_settings,
    encode_settings,
)
from cas.errors import ConfigError

HIDDEN = "hunter2"
SETTINGS = SourceSettings(
    url=f"https://bob:{HIDDEN}@host/base?sig={HIDDEN}",
    credentials=Credentials(username="bob", password=Secret(HIDDEN), private_key=Secret(HIDDEN)),
    transport=TransportSettings(
        ca_pem="-----BEGIN CERTIFICATE-----",
        headers={"x-key": Secret(HIDDEN)},
        proxies=Proxies(https=Secret(f"http://u:{HIDDEN}@proxy:1"), bypass=".local"),
    ),
    mirrors=(
        Mirror(url=f"https://u:{HIDDEN}@mirror", credentials=Credentials(password=Secret(HIDDEN))),
    ),
    region="eu-1",
)


def test_settings_that_were_encoded_decode_to_equal_ones() -> None:
    """Secrets included: the other process needs them."""
    assert decode_settings(encode_settings(SETTINGS)) == SETTINGS


def test_settings_in_a_representation_show_no_secret() -> None:
    """A log line with them in it is harmless."""
    parts = (SETTINGS, SETTINGS.credentials, SETTINGS.transport, SETTINGS.mirrors)

    assert HIDDEN not in repr(parts)
    assert HIDDEN not in "".join(map(str, parts))


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"url": 1}', b"\xff", b'{"url": "x"'])
def test_decoding_garbage_raises_config_error_without_quoting_it(data: bytes) -> None:
    """What does not parse may still be a secret."""
    with pytest.raises(ConfigError) as caught:
        decode_settings(data)

    assert str(data) not in caught.value.message
