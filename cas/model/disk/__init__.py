"""Disk images and disk volumes, as values and pure rules."""
