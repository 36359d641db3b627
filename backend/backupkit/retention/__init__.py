"""Retention: pure rules that decide which backups to keep, and the removal of the others."""

PUBLIC = ("anomaly", "delete", "prune", "rules")
"""Modules that other packages may import; tests/system/test_layers.py checks it."""
