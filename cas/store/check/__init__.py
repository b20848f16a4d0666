"""The invariants verified, and what is wrong repaired."""
