"""Rewind: points in time between two backups, each in one small sealed file, and restoring any of them."""

PUBLIC = ("chain", "copies", "moments", "take", "thin")
"""Modules that other packages may import; the rest is private to this package (tests/system/test_layers.py)."""
