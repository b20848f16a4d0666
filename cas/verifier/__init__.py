"""The verifier: nothing goes on from the downloader that is not what its name says.

Its process (``python -m cas.verifier``, :mod:`cas.verifier.agent`) has no network and reaches only
its own directory; it hashes what lies in ``pending`` and publishes it in ``verified``. Outside of
the process, with the rights of root, :mod:`cas.verifier.handover` brings files from the
downloader's directory into the verifier's and makes them the verifier's own.
"""
