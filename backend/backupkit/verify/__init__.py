"""Verify: checksums, test restores, and a look inside a backup."""
