"""What looks like something else because the vault was locked meanwhile, told as what it is."""

from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import grpc
import pytest

from cas._gen.cas.v1 import images_pb2
from cas.app import Case
from cas.cli.vault_watch import ended_by_locking
from cas.errors import ImageNotFoundError, SourceNotFoundError, VaultLockedError
from cas.fsops.locks import lock
from cas.model.settings import Settings
from tests.support.rpc import failing, serve


def test_call_that_misses_something_when_the_vault_is_locked_says_so(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller would believe that it is not there."""
    with Case.open(settings) as case, serve(case, tmp_path) as service, ExitStack() as closing:

        def is_missed(_name: str) -> NoReturn:
            closing.enter_context(lock(settings.layout.vault_closing))
            raise ImageNotFoundError("no image has this name")

        with monkeypatch.context() as patch:
            patch.setattr(case.images, "get", is_missed)
            with failing(grpc.StatusCode.FAILED_PRECONDITION, "vault-locked"):
                service.images.Get(images_pb2.GetImageRequest(name="absent"))
        closing.close()
        with failing(grpc.StatusCode.NOT_FOUND, "image-not-found"):
            service.images.Get(images_pb2.GetImageRequest(name="absent"))


def test_command_that_misses_something_when_the_vault_is_locked_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when that comes before its own look at the vault."""
    monkeypatch.setattr("cas.cli.vault_watch._POLL_SECONDS", 3600.0)
    with ExitStack() as closing:

        def miss() -> NoReturn:
            closing.enter_context(lock(settings.layout.vault_closing))
            raise SourceNotFoundError("no such file")

        with pytest.raises(VaultLockedError), ended_by_locking(settings):
            miss()
    with pytest.raises(SourceNotFoundError), ended_by_locking(settings):
        raise SourceNotFoundError("no such file")
