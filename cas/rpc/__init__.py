"""The gRPC service ``cas.v1`` and its Python client; above the use cases, below ``cas.app``.

Importing the package costs nothing: grpc is loaded by the modules that need it.
"""
