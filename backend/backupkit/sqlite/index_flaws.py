"""An index that does not match its table: in words, with the line that mends it."""

from __future__ import annotations

from collections.abc import Sequence

from backupkit.config.settings import Settings
from backupkit.model.names import first_of
from backupkit.sqlite import database


def sentence(settings: Settings, flaws: Sequence[str]) -> str:
    """What is wrong with the live database's indexes. No row is missing; which of the two is right nobody can tell."""
    mend = settings.reach.sql(settings.database, database.mend_of(flaws))
    return f"In {settings.database} an index does not match its table: {first_of(flaws)}. Write it anew: {mend}"
