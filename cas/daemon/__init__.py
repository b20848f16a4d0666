"""The processes that stay: the supervised containerd, and the service on top of it."""
