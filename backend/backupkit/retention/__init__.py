"""Retention: which backups are kept, by rules that are pure functions, and their removal."""

PUBLIC = ("anomaly", "delete", "prune", "rules")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
