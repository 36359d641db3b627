"""Migrations: Alembic's revisions, how a backup compares with this code, and upgrades, rehearsed on a copy."""

PUBLIC = ("app_process", "guard", "migrate", "schema", "upgrade", "version_table")
"""What other packages may import; anything else is this package's own (tests/system/test_layers.py)."""
