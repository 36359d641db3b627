"""Remotes: places that store copies of backups. One module for each type; all implement `base.Remote`."""

PUBLIC = ("base", "copies", "listing_cache", "prune", "pull", "push", "registry")
"""Modules that other packages may import; all others are private (tests/system/test_layers.py)."""
