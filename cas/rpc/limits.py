"""How large the messages of the service are; the server requires it, the client keeps to it."""

__all__ = ["DIGESTS", "MESSAGE_BYTES", "PIECE_BYTES"]

_KIB = 1024

MESSAGE_BYTES = 320 * _KIB
"""Largest request. As many as may run at once lie in memory before anybody asks for a place."""

PIECE_BYTES = 256 * _KIB
"""Content in one message: enough for full speed, and little for each of many callers."""

DIGESTS = 4096
"""Digests in one request; they take 292 KiB."""
