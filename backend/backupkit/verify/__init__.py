"""Verify: check backups, test-restore them, and browse their content."""

PUBLIC = ("browse", "files", "verify")
"""Modules that other packages may import; the rest is private to this package (tests/system/test_layers.py)."""
