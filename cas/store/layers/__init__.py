"""Layers: from blobs to committed, durable snapshots."""
