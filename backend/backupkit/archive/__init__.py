"""One backup as one file: tar, compressed, and encrypted with age."""

PUBLIC = ("export", "packing", "tar")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
