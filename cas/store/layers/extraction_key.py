"""Names of the snapshots that exist only while a layer is unpacked; pure.

A name is never used twice, so that what a killed process left behind is never mistaken for work
in progress. Recovery finds leftovers by the prefix.
"""

__all__ = ["EXTRACTION_PREFIX", "extraction_key"]

import secrets

from cas.model.digest import ChainID

EXTRACTION_PREFIX = "cas-extract-"


def extraction_key(chain_id: ChainID) -> str:
    """Make a new key for unpacking the layer that completes ``chain_id``."""
    return f"{EXTRACTION_PREFIX}{secrets.token_hex(8)} {chain_id}"
