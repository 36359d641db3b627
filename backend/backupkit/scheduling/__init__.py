"""Schedules: when backups and test restores are due (pure functions), and the steps that run them."""

PUBLIC = ("agenda", "planner", "run", "scheduler_lock")
"""Modules that other packages may import; the rest is private to this package (tests/system/test_layers.py)."""
