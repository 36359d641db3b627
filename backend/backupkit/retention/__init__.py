"""Retention: which backups are kept, by rules that are pure functions, and their removal."""
