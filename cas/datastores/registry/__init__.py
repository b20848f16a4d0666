"""OCI registries: authentication, tags, manifests, blobs and what refers to them.

``registry`` is the whole, a ``host`` the registry itself or one of its mirrors. ``docker_config``
and ``hosts_toml`` read docker's and containerd's files, for a process that may, into settings.

Source: OCI distribution specification; docker's token authentication specification.
"""
