"""Taking rights away from this process, for good; beside fsops, above nothing but errors.

An agent that handles what strangers sent runs with what it needs and nothing else. It starts as
root, imports what it will use, and then calls :func:`cas.confinement.confine.confine` once.
"""
