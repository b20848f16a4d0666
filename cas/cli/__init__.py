"""The ``cas`` command: parses, calls one use case of the library, prints; decides nothing.

Start-up counts: this package imports click and the standard library; everything else, grpc first
of all, is imported inside the command that needs it.
"""
