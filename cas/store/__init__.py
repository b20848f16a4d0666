"""Use cases on content: ingest, images, unpack, prune, check, usage.

Above the adapters and ``fsops``, below volumes. Talks to containerd through the protocols of
:mod:`cas.store.ports` only and never imports grpc.
"""
