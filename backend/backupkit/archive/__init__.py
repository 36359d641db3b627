"""One backup as one file: tar, compressed, and encrypted with age."""

PUBLIC = ("export", "packing", "tar")
"""Modules that other packages may import; all others are private (tests/system/test_layers.py)."""
