"""Blobs: the ways in, and what people do with them."""
