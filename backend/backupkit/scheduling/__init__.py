"""Schedules: when a backup is due, and the run of what is due. When is a pure function."""
