"""The downloader: the only part of eve-cas that speaks to the network.

Its process (``python -m cas.downloader``, :mod:`cas.downloader.agent`) serves one datastore,
reaches only its own directory, and leaves whole files there that nobody has verified. Everything
that it has to know, credentials included, it is told over its pipe by
:mod:`cas.downloader.downloader`.
"""
