"""The schema version of an app without Alembic: Django's or Rails' table of migrations, or the schema itself."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping

from backupkit.model.backup import AppMigrations

# Each tool's table, and the query that lists its migrations in the order in which they ran.
_TABLES = {
    "django": ("django_migrations", "SELECT app || '.' || name FROM django_migrations ORDER BY id"),
    "rails": ("schema_migrations", "SELECT version FROM schema_migrations ORDER BY version"),
}


def applied(connection: sqlite3.Connection) -> tuple[str, tuple[str, ...]] | None:
    """Return the tool and every migration that has run, or None if there is no such table."""
    for tool, (table, query) in _TABLES.items():
        if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone():
            try:
                return tool, tuple(str(row[0]) for row in connection.execute(query))
            except sqlite3.OperationalError:  # a table of that name with other columns
                continue
    return None


def facts(connection: sqlite3.Connection) -> AppMigrations | None:
    """Return the last migration and the number of migrations, or None if none has run."""
    found = applied(connection)
    return AppMigrations(found[0], found[1][-1], len(found[1])) if found and found[1] else None


def schema_of(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the SQL of each table (with its indexes and triggers) and view by name, white space normalized."""
    query = "SELECT tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    found: dict[str, list[str]] = {}
    for table, sql in connection.execute(query):
        found.setdefault(table, []).append(re.sub(r"\s+", " ", sql).strip())
    return {table: "\n".join(sorted(lines)) for table, lines in found.items()}


def differing(one: Mapping[str, str], two: Mapping[str, str]) -> list[str]:
    """Return the tables and views, sorted, whose SQL differs or that only one of the two has."""
    return sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
