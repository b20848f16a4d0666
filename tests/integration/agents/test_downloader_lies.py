"""A downloader that was taken over by what it talks to."""

import sys

import pytest

from cas.datastores.settings import SourceSettings
from cas.downloader.downloader import Downloader
from cas.errors import DigestMismatchError
from cas.model.reference import ImageReference
from cas.model.settings import Settings

ANSWERED, PINNED = ("sha256:" + sign * 64 for sign in "ab")
LIAR = f"""
import json, sys
sys.stdin.readline()
print(json.dumps({{"type": "ready", "standing": [], "missing": {{}}}}), flush=True)
call = json.loads(sys.stdin.readline())
value = {{"media_type": "application/vnd.oci.image.manifest.v1+json", "digest": "{ANSWERED}",
          "size": 2}}
print(json.dumps({{"type": "result", "id": call["id"], "value": value}}), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def liar(agent_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Downloader:
    """What answers every question with one digest."""
    command = (sys.executable, "-I", "-c", LIAR)
    monkeypatch.setattr("cas.downloader.program.module_command", lambda _: command)
    return Downloader(agent_settings, SourceSettings(url="docker://registry.example"))


def test_digest_that_was_not_asked_for_is_refused(liar: Downloader) -> None:
    """Else the signature of another image, or no check at all, would let it in."""
    with liar, pytest.raises(DigestMismatchError, match="is pinned to"):
        liar.resolve(ImageReference.parse(f"registry.example/app:1@{PINNED}"))


def test_answer_to_a_tag_is_taken(liar: Downloader) -> None:
    """Nothing pins a tag but the registry's word."""
    with liar:
        found = liar.resolve(ImageReference.parse("registry.example/app:1"))

    assert str(found.digest) == ANSWERED
