"""Which platform configuration registers a key is sealed under; pure rules.

Source: LF Edge EVE's rules for the policy that its controller may set.
"""

__all__ = ["DEFAULT_PCRS", "MEASURED_BY_FIRMWARE", "check_pcrs"]

from collections.abc import Sequence

from cas.errors import ConfigError

DEFAULT_PCRS = (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14)
"""All that firmware, boot loader and system extend, without 5: an update changes the partition
table that is measured there."""
MEASURED_BY_FIRMWARE = (0, 4)
"""Never zero on a machine that measures its boot: firmware, and the code that it loads."""
_FIRMWARE = 0
_PARTITION_TABLE = 5
_LAST = 15


def check_pcrs(pcrs: Sequence[int]) -> tuple[int, ...]:
    """Accept a selection of registers, in ascending order.

    Raises:
        ConfigError: It is empty, names one twice, lacks 0, has 5, or one beyond 15.
    """
    if not pcrs:
        raise ConfigError("pcrs is empty; a key without PCRs is asked for by provider, not here")
    if len(set(pcrs)) != len(pcrs):
        raise ConfigError(f"pcrs {list(pcrs)} names one twice", pcrs=list(pcrs))
    outside = [pcr for pcr in pcrs if not 0 <= pcr <= _LAST]
    if outside:
        raise ConfigError(f"pcrs has {outside[0]}; PCRs from 0 to {_LAST} can be used", pcrs=pcrs)
    if _FIRMWARE not in pcrs:
        raise ConfigError("pcrs lacks 0, the firmware: without it the others prove nothing")
    if _PARTITION_TABLE in pcrs:
        raise ConfigError("pcrs has 5, the partition table, which updates change; leave it out")
    return tuple(sorted(pcrs))
