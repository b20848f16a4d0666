"""Pulling: by this process, or by the service where it must be used or this one cannot."""

__all__ = ["pull_file", "pull_image"]

import os
from typing import TYPE_CHECKING

from cas.model.settings import ServiceUse

if TYPE_CHECKING:
    from uuid import UUID

    from cas.cli.invocation import Invocation
    from cas.model.descriptor import Platform
    from cas.model.digest import Digest
    from cas.model.records import PulledImage
    from cas.model.settings import Settings
    from cas.store.content.intake import Ingested


def pull_image(
    invocation: "Invocation",
    reference: str,
    *,
    name: str | None = None,
    platform: "Platform | None" = None,
) -> "PulledImage":
    """Pull with the caller's credentials; with those of the service where that has to do it.

    See :meth:`cas.pull.pull.Pull.image` for the errors.
    """
    settings = invocation.settings()
    with invocation.progress() as progress:
        client = invocation.client(settings) if _needs_service(settings) else None
        if client is not None:
            with client:
                return client.images.pull(
                    reference, name=name, platform=platform, progress=progress
                )
        from cas.pull.early_agents import early_agents

        with early_agents(settings) as early, invocation.own_case() as case:
            return case.pull.image(
                reference, name=name, platform=platform, progress=progress, launch=early.launch
            )


def pull_file(
    invocation: "Invocation",
    url: str,
    digest: "Digest",
    *,
    size: int | None,
    media_type: str | None,
    image: "UUID | None",
) -> "Ingested":
    """Pull a single file; credentials as in :func:`pull_image`.

    See :meth:`cas.pull.pull.Pull.file` for the errors.
    """
    settings = invocation.settings()
    with invocation.progress() as progress:
        client = invocation.client(settings) if _needs_service(settings) else None
        if client is not None:
            with client:
                return client.blobs.pull(
                    url, digest, size=size, media_type=media_type, image=image, progress=progress
                )
        with invocation.own_case() as case:
            return case.pull.file(
                url, digest, size=size, media_type=media_type, image=image, progress=progress
            )


def _needs_service(settings: "Settings") -> bool:
    """Whether it must be used, or this user can neither open the store nor start the agents."""
    return settings.service is ServiceUse.ALWAYS or os.geteuid() != 0
