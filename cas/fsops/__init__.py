"""File system operations: the only code that renames, links, unlinks, syncs, locks or mounts.

Stands on :mod:`cas.model` and :mod:`cas.errors` alone and knows nothing of containerd. Each
function translates what the kernel answers into the errors of :mod:`cas.errors` and announces
each change to :mod:`cas.fsops.effects` before making it.
"""
