"""Migrations: Alembic's revisions, how a backup compares with this code, and upgrades, rehearsed on a copy."""
