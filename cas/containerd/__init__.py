"""Adapter to containerd's gRPC services, and the supervisor of an embedded containerd.

Beside ``cas.fsops`` and below ``cas.store``. Importing the package costs nothing: grpc is loaded
by :mod:`cas.containerd.client` and what it needs.
"""
