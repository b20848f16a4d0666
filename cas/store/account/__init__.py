"""Who keeps whom and what uses the disk; looks only."""
