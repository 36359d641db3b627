"""Back up: the database and the uploads into a draft, which is sealed, checked and published."""

PUBLIC = ("create", "make", "references", "salvage", "single_file", "sql_dump")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
