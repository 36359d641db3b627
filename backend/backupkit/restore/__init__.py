"""Restore: plan, safety copy, staging, journal, apply, check; and recovery, undo, and a copy beside the live data."""
