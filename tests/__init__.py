"""Tests; see the module docstrings of the folders."""
