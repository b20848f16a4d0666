"""Removing what nothing refers to: plan, run, proof."""
