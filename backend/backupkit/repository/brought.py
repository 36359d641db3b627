"""Backups that a person brought here from elsewhere, as the history tells: they stay for as long as a restore takes."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from backupkit.model.operation import Operation
from backupkit.repository import history

DAYS = 7


def reasons_to_keep(backups: Path, now: datetime) -> dict[str, str]:
    """Return by name why retention must keep what `import` or `pull` brought in the last days; reads the history."""
    since = now - timedelta(days=DAYS)
    return {
        name: f"brought here by {operation.command}, less than {DAYS} days ago"
        for operation in history.read(backups).operations
        if operation.started_at > since and _has_brought(operation)
        for name in operation.backups
    }


def _has_brought(operation: Operation) -> bool:
    return operation.command in ("import", "pull") and operation.outcome in ("success", "warning")
