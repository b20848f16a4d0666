"""Builders and fixtures that tests of all kinds share."""
