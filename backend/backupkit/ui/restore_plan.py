"""The plan of a restore as it is seen in the window: what changes stands first, and what is lost is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from backupkit.cli import render
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.backup import Backup
from backupkit.model.names import printable
from backupkit.restore.restore import RestorePlan
from backupkit.sqlite.rows import Changes
from backupkit.ui.styles import Colours
from backupkit.upload_files.diff import Summary


def plan_shown(settings: Settings, plan: RestorePlan, backup: Backup | None, colours: Colours) -> RenderableType:
    """All that the plan of the command line says, as a picture."""
    facts = _facts(settings, plan, backup, colours)
    return Group(_labelled(facts), *_rows(plan, colours), Text(), _labelled(_costs(plan)))


def _labelled(lines: Iterable[tuple[str, Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", width=8)
    table.add_column(overflow="fold")  # a path is told whole
    for label, text in lines:
        table.add_row(label, text)
    return table


def _facts(
    settings: Settings, plan: RestorePlan, backup: Backup | None, colours: Colours
) -> Iterator[tuple[str, Text]]:
    if backup and backup.metadata:
        note = f" · {printable(backup.metadata.note)}" if backup.metadata.note else ""
        made = settings.local(backup.metadata.created_at)
        yield "Made", Text(f"{made:%Y-%m-%d %H:%M:%S} · {backup.state}{note}")
    if plan.verdict:
        now, after = (printable(", ".join(one)) or "none" for one in (plan.live.revisions, plan.revisions_after))
        yield "Schema", Text(f"{now} → {after}: {plan.verdict.reason}")
        yield from _pending(settings, plan)
    if plan.uploads:
        yield "Uploads", _uploads(plan.uploads, colours)
    for note in plan.notes:
        yield "! Note", Text(note, style=colours["warning"])


def _costs(plan: RestorePlan) -> Iterator[tuple[str, Text]]:
    yield "Space", Text(", ".join(f"{format_bytes(needed)} in {folder}" for folder, needed in plan.needs.items()))
    way_back = "A safety copy is made first; Undo takes the restore back."
    yield "Way back", Text(way_back if plan.can_undo else "None: there is no database that could be copied first.")


def _pending(settings: Settings, plan: RestorePlan) -> Iterator[tuple[str, Text]]:
    """The migrations between the backup and this code, and who runs them when."""
    assert plan.verdict
    if not plan.verdict.pending:
        return
    lines = [f"{one.revision}  {printable(one.title)}" for one in plan.verdict.pending]
    if plan.migrate:
        lines.insert(0, "Run on the copy, before it goes live:")
    else:
        lines.insert(0, "To run afterwards; or go back, and let it be migrated:")
        reach, verdict = settings.reach, plan.verdict
        own = reach.has_own_command
        lines.append(reach.tool(verdict.command) if own else reach.alembic(f"upgrade {verdict.target}"))
    yield "", Text("\n".join(lines))


def _uploads(summary: Summary, colours: Colours) -> Text:
    """How many files are restored, changed and removed."""
    if not (summary.added or summary.changed or summary.removed):
        return Text("the same as in the backup")
    text = Text()
    text.append(f"+ {summary.added:,} restored", style=colours["success"] if summary.added else "")
    text.append("  ")
    text.append(f"~ {summary.changed:,} changed", style=colours["warning"] if summary.changed else "")
    text.append("  ")
    text.append(f"- {summary.removed:,} removed", style=colours["error"] if summary.removed else "")
    text.append(f"  ({format_bytes(summary.bytes)} to copy)")
    return text


def _rows(plan: RestorePlan, colours: Colours) -> Iterator[RenderableType]:
    """Rows by table, now and after; the tables in which at most the contents differ are counted."""
    if not plan.source.facts:
        return
    now, after = plan.live.rows, plan.rows_after
    names = sorted({*now, *after})
    changes = plan.live.changes
    others = plan.differing_tables
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold", show_edge=False)
    table.add_column("Table")
    for head in ("Rows now", "After", ""):
        table.add_column(head, justify="right")
    for name in others:
        table.add_row(Text(printable(name)), *_counts(now.get(name), after.get(name), changes.get(name), colours))
    yield Text()
    if others:
        yield table
    if same := len(names) - len(others):
        known = all(name in changes for name in names if name not in others)
        what = "that stay as they are" if known else "with as many rows as now"
        yield Text(f"{render.counted(same, 'table')} {what}", style="dim")


def _counts(now: int | None, after: int | None, changes: Changes | None, colours: Colours) -> tuple[Text, Text, Text]:
    difference = (after or 0) - (now or 0)
    caption = "comes back" if now is None else "goes" if after is None else f"{difference:+,}"
    if changes and changes.changed and now is not None and after is not None:
        caption = f"{caption if difference else ''} {changes.changed:,} changed".strip()
    return (
        Text("-" if now is None else f"{now:,}"),
        Text("-" if after is None else f"{after:,}"),
        Text(caption, style=colours["success" if difference > 0 or now is None else "error"]),
    )
