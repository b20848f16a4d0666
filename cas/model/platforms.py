"""Platforms: how they are written, which one a machine is, which entry of an index it takes.

Pure rules; nobody asks the machine here. The preference lists are those of containerd.
"""

__all__ = [
    "host_platform",
    "is_attestation",
    "matches",
    "normalise",
    "order_by_preference",
    "parse_platform",
    "preferences",
]

import re
from collections.abc import Iterable

from cas.errors import InvalidNameError
from cas.model.descriptor import Descriptor, Platform

_PART = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "loongarch64": ("loong64", ""),
}
_DEFAULT_VARIANTS = {("amd64", "v1"), ("arm64", "v8"), ("arm64", "8"), ("arm64", "v8.0")}
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")
_AMD64_VARIANTS = ("v4", "v3", "v2")

_MAX_PARTS = 3  # os, architecture, variant

_ATTESTATION_TYPE = "vnd.docker.reference.type"


def normalise(os: str, architecture: str, variant: str = "") -> Platform:
    """Give the form in which platforms are compared.

    Source: containerd's platforms package: aliases such as ``x86_64`` and ``armhf``, default
    variants left out, ``arm`` without variant being v7.
    """
    os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
    architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = implied or variant
    if (architecture, variant) in _DEFAULT_VARIANTS:
        variant = ""
    if architecture == "arm":
        variant = f"v{variant}" if variant.isdecimal() else variant or "v7"
    return Platform({"macos": "darwin"}.get(os, os), architecture, variant)


def parse_platform(text: str) -> Platform:
    """Parse ``os/architecture[/variant]`` or an architecture alone, whose system is Linux.

    Raises:
        InvalidNameError: Anything else.
    """
    parts = text.split("/")
    if len(parts) > _MAX_PARTS or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidNameError(
            f"platform {text[:100]!r} is not of the form os/architecture[/variant], "
            "for example linux/arm64",
            value=text[:100],
        )
    if len(parts) == 1:
        parts = ["linux", *parts]
    return normalise(*parts)


def host_platform(machine: str) -> Platform:
    """Give the platform of a Linux machine whose kernel calls its hardware ``machine``."""
    return normalise("linux", machine)


def preferences(wanted: Platform) -> list[Platform]:
    """List what runs on ``wanted``, best first.

    Source: containerd's platforms package, ``platformVector``.
    """
    listed = [wanted]
    match wanted.architecture:
        case "amd64":
            listed += _lower(wanted, _AMD64_VARIANTS, and_none=True)
            listed.append(Platform(wanted.os, "386"))
        case "arm64":
            if wanted.variant:
                listed.append(Platform(wanted.os, "arm64"))
            listed += [Platform(wanted.os, "arm", variant) for variant in _ARM_VARIANTS]
        case "arm":
            listed += _lower(wanted, _ARM_VARIANTS, and_none=False)
    return listed


def _lower(wanted: Platform, variants: tuple[str, ...], *, and_none: bool) -> list[Platform]:
    """The variants below that of ``wanted``; none where it is not in the list."""
    if wanted.variant not in variants:
        return []
    below = variants[variants.index(wanted.variant) + 1 :]
    names = (*below, "") if and_none else below
    return [Platform(wanted.os, wanted.architecture, name) for name in names]


def matches(offered: Platform, wanted: Platform) -> bool:
    """Whether ``offered`` runs on ``wanted``."""
    return offered in preferences(wanted)


def is_attestation(entry: Descriptor) -> bool:
    """Whether an index entry describes another entry instead of something that runs."""
    if entry.annotations.get(_ATTESTATION_TYPE) == "attestation-manifest":
        return True
    return entry.platform is not None and (
        entry.platform.os == "unknown" and entry.platform.architecture == "unknown"
    )


def order_by_preference(entries: Iterable[Descriptor], wanted: Platform) -> list[Descriptor]:
    """List the entries of an index that may run on ``wanted``, best first.

    Entries without a platform may, and come last: their config decides. Attestations never do.
    Equally good entries keep their order.
    """
    order = {platform: rank for rank, platform in enumerate(preferences(wanted))}
    ranked = [
        (len(order) if entry.platform is None else order[entry.platform], entry)
        for entry in entries
        if not is_attestation(entry) and (entry.platform is None or entry.platform in order)
    ]
    return [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])]
