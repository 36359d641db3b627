"""Back up: the database and the uploads into a draft, which is sealed, checked and published."""

PUBLIC = ("create", "make", "references", "salvage", "single_file", "sql_dump")
"""Modules that other packages may import; the rest is private to this package (tests/system/test_layers.py)."""
