"""SQLite: snapshots, inspection, checks and replacement of a live database, and SQL text."""
