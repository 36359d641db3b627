"""SQLite: a snapshot of a live database, what is in it, its check, its replacement, and SQL text."""
