"""Rewind: points in time between two backups, each one small sealed file; and the data of any of them."""

PUBLIC = ("chain", "copies", "moments", "take", "thin")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
