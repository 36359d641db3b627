"""Remotes: where copies of backups are carried. A module a kind; all keep to `base.Remote`."""

PUBLIC = ("base", "copies", "listing_cache", "probe", "prune", "pull", "push", "registry")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
