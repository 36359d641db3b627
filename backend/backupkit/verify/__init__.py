"""Verify: checksums, test restores, and a look inside a backup."""

PUBLIC = ("browse", "files", "verify")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
