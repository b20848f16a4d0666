"""Use cases on volumes, above the store: nothing here speaks to containerd but through ports."""
