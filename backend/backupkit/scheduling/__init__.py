"""Schedules: when a backup is due, and the run of what is due. When is a pure function."""

PUBLIC = ("agenda", "planner", "run", "scheduler_lock")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
