"""HTTP: one transport for every datastore that speaks it, and the plain http(s) datastore.

Built on urllib3 rather than on requests: what a download needs (bytes as they were sent, reads
that return what has come, no configuration from the environment, no redirect followed with its
body read into memory) is urllib3's own, and would have to be fought for one level higher.
"""
