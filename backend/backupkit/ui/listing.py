"""The backups as rows of a table: columns, order and search. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from backupkit.cli import render
from backupkit.cli.filters import has_words
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.backup import Backup, SchemaVerdict
from backupkit.model.names import printable
from backupkit.ui.styles import state_text

_STATE = 12  # characters
RELATIONS: Mapping[str, str] = {
    "same": "= this code",
    "behind": "< behind",
    "unknown": "> ahead",
    "unreadable": "? unread",
    "unversioned": "? none",
    "no_migrations": "-",
}


@dataclass(frozen=True)
class View:
    """What cells need besides their backup: the settings, and the schema verdict for each set of revisions."""

    settings: Settings
    verdicts: Mapping[tuple[str, ...], SchemaVerdict]

    def verdict(self, backup: Backup) -> SchemaVerdict | None:
        """Return how the backup's revisions relate to this code, or None if unknown."""
        return self.verdicts.get(backup.metadata.revisions) if backup.metadata else None


@dataclass(frozen=True)
class Column:
    """A table column: its title, minimum width in characters, cell text, and sort key."""

    title: str
    width: int
    cell: Callable[[View, Backup], str | Text]
    order: Callable[[Backup], Any]


def _made(view: View, backup: Backup) -> str:
    return f"{view.settings.local(backup.metadata.created_at):%Y-%m-%d %H:%M}" if backup.metadata else "-"


def _state(_view: View, backup: Backup) -> Text:
    marks = f"{'◆' if backup.pinned else ''}{'!' if backup.unusual else ''}"
    gap = " " if len(backup.state) + len(marks) < _STATE - 2 else ""  # drop the gap rather than cut off a mark
    return state_text(backup.state, f"{backup.state}{gap}{marks}".rstrip())


def _size(_view: View, backup: Backup) -> Text:
    return Text(format_bytes(backup.size_bytes) if backup.metadata else "-", justify="right")


def _adds(_view: View, backup: Backup) -> Text:
    return Text(format_bytes(backup.unique_bytes) if backup.metadata else "-", justify="right")


def _relation(view: View, backup: Backup) -> str:
    verdict = view.verdict(backup)
    return RELATIONS[verdict.relation] if verdict else "-"


def _created_at(backup: Backup) -> float:
    return backup.metadata.created_at.timestamp() if backup.metadata else 0.0


COLUMNS: tuple[Column, ...] = (
    Column("Made", 16, _made, _created_at),
    Column("State", _STATE, _state, lambda one: (one.state, one.pinned)),
    Column("Name", 25, lambda _, one: printable(one.name), lambda one: one.name),
    Column("Size", 8, _size, lambda one: one.size_bytes),
    Column("Adds", 8, _adds, lambda one: one.unique_bytes),
    Column("Kind", 13, lambda _, one: one.kind or "-", lambda one: one.kind),
    Column("Schema", 11, _relation, lambda one: one.metadata.revisions if one.metadata else ()),
    Column("Note", 30, lambda _, one: printable(render.remark(one)), render.remark),
)
NAME, NOTE = 2, len(COLUMNS) - 1  # the columns that get the spare room


def widths(width: int, found: Sequence[Backup]) -> list[int]:
    """Return the column widths for a table of this width; spare room goes to names first, then to notes."""
    each = [column.width for column in COLUMNS]
    for place, longest in ((NAME, lambda one: len(printable(one.name))), (NOTE, lambda one: len(render.remark(one)))):
        spare = width - sum(each) - 2 * len(each) - 1  # 2 of padding for each column, 1 for the scroll bar
        wanted = max(map(longest, found), default=0)
        each[place] = max(each[place], min(wanted, each[place] + spare))
    return each


@dataclass(frozen=True)
class Choice:
    """The search words, and the order of the table."""

    words: str = ""
    column: Column = COLUMNS[0]
    is_descending: bool = True

    def of(self, backups: Sequence[Backup]) -> list[Backup]:
        """Return the backups that match, sorted; equal ones keep their order, newest first."""
        matching = [one for one in backups if has_words(one, self.words.lower().split())]
        return sorted(matching, key=self.column.order, reverse=self.is_descending)

    def sorted_by(self, place: int) -> Choice:
        """Return this choice sorted by the column at `place`, or in reverse order if it is already sorted by it."""
        column = COLUMNS[place]
        return Choice(self.words, column, not self.is_descending or column is not self.column)


def cells(view: View, backup: Backup) -> Iterator[Text]:
    """Yield the cells of one row, as `Text`, since a table parses brackets in strings as markup."""
    texts = (column.cell(view, backup) for column in COLUMNS)
    return (Text(one) if isinstance(one, str) else one for one in texts)


def summary(view: View, backup: Backup) -> Iterator[str]:
    """Yield a summary of one backup in a few lines."""
    metadata = backup.metadata
    if metadata is None:
        yield f"{printable(backup.name)}: {printable(backup.error)}"
        return
    yield f"{printable(backup.name)}{f' · {printable(metadata.note)}' if metadata.note else ''}"
    yield _contents(backup)
    if verdict := view.verdict(backup):
        yield verdict.reason
    why = [flaw.text for flaw in backup.flaws[:1]] or [backup.error or backup.not_proven]
    yield from (f"! {printable(text)}" for text in (*why, *backup.unusual[:1]) if text)


def _contents(backup: Backup) -> str:
    assert backup.metadata
    facts, uploads = backup.metadata.database, backup.metadata.uploads
    parts = [f"{len(facts.rows)} tables, {sum(facts.rows.values()):,} rows"] if facts else []
    parts += [f"{uploads.files:,} uploads"] if uploads else [] if backup.metadata.uploads_included else ["no uploads"]
    parts += [f"{len(uploads.warnings)} warnings"] if uploads and uploads.warnings else []
    return " · ".join(parts)
