"""A content-addressed store for EVE on top of containerd.

This module holds the version and nothing that costs time or does I/O.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
