"""Disk volumes: one file each, made from an image or blank."""
