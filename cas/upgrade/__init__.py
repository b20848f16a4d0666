"""The upgradeconverter: what an older layout left, found again in the new one.

Reads the old places, the device's configuration and what is in the new places already; plans;
then moves, one item after the other, with a journal. Nothing is removed before its copy is on the
device and was compared, nothing that stands in a new place is replaced, and one item that fails
keeps no other back.
"""
