"""Migrations: Alembic's revisions, how a backup compares with this code, and upgrades rehearsed on a copy."""

PUBLIC = ("app_process", "guard", "migrate", "schema", "upgrade", "version_table")
"""Modules that other packages may import; all others are private (tests/system/test_layers.py)."""
