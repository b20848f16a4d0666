"""Encrypted directories and their keys: made, opened, locked, resealed; beside the agents."""
