"""Results in words, for people: lists, plans, what was done and what to do next. Each function returns lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from backupkit.parts.sources.delta import Summary
from backupkit.parts.space import human
from backupkit.verbs.doctor import Finding
from backupkit.verbs.make import Created
from backupkit.verbs.migrate import Migrated
from backupkit.verbs.restore import Restored, RestorePlan
from backupkit.verbs.status import Numbers, Status
from backupkit.words.model import Backup, Metadata, SchemaVerdict
from backupkit.words.names import shown
from backupkit.words.operation import Operation
from backupkit.words.reach import Reach
from backupkit.words.settings import Settings
from backupkit.words.times import span

_MARKS = {"fine": "ok     ", "warning": "warning", "wrong": "WRONG  "}


def counted(number: int, thing: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as they need to be; no line is ever cut, so that a script can read it."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def listing(settings: Settings, found: list[Backup]) -> Iterator[str]:
    """The backups, newest first."""
    if not found:
        yield f"There are no backups in {settings.dir} yet. Make one: {settings.reach.tool('backup')}"
        return
    head = ("NAME", "MADE", "KIND", "SIZE", "REVISION", "STATE", "NOTE")
    yield from table(head, (_row(settings, backup) for backup in found))


def _row(settings: Settings, backup: Backup) -> tuple[str, ...]:
    metadata = backup.metadata
    if metadata is None:
        return backup.name, "-", "-", "-", "-", "damaged", backup.trouble
    state = f"{backup.state}, pinned" if backup.pinned else backup.state
    made = settings.local(metadata.created_at).strftime("%Y-%m-%d %H:%M:%S")
    revision = shown(",".join(metadata.revisions)) or "-"
    return backup.name, made, metadata.kind, human(backup.size_bytes), revision, state, shown(metadata.note)


def details(settings: Settings, backup: Backup) -> Iterator[str]:
    """One backup in full."""
    yield f"{backup.name}  ({backup.path})"
    if backup.metadata is None:
        yield f"  state      damaged: {backup.trouble}"
        return
    metadata = backup.metadata
    yield f"  made       {settings.local(metadata.created_at).isoformat(sep=' ')} ({_ago(metadata.created_at)})"
    yield f"  kind       {metadata.kind}{', pinned' if backup.pinned else ''}"
    yield f"  state      {backup.state}"
    yield f"  size       {human(backup.size_bytes)}"
    if metadata.note:
        yield f"  note       {shown(metadata.note)}"
    yield f"  revision   {shown(', '.join(metadata.revisions)) or 'none'}"
    yield from _contents(metadata)


def _contents(metadata: Metadata) -> Iterator[str]:
    if git := metadata.git:
        where = f"{git.branch or 'detached'} {git.short}{' (changed files)' if git.dirty else ''}: {git.subject}"
        yield f"  code       {shown(where)}"
    if facts := metadata.database:
        engine = f"SQLite {facts.sqlite_version}, {facts.journal_mode}"
        yield shown(f"  database   {metadata.database_file}, {human(facts.size)}, {engine}")
        yield from (f"    {shown(name)}: {counted(rows, 'row')}" for name, rows in facts.rows.items())
    if uploads := metadata.uploads:
        yield f"  uploads    {counted(uploads.files, 'file')}, {human(uploads.bytes)}"
        yield from (f"    warning: {shown(warning)}" for warning in uploads.warnings)
    elif not metadata.uploads_included:
        yield "  uploads    not in this backup"


def made(created: Created) -> Iterator[str]:
    """What was backed up, in one line; where it lies in a second."""
    metadata = created.backup.metadata
    assert metadata is not None and metadata.database is not None
    rows = counted(sum(metadata.database.rows.values()), "row")
    tables = counted(len(metadata.database.rows), "table")
    files = counted(metadata.uploads.files, "upload") if metadata.uploads else "no uploads"
    revision = f"revision {', '.join(metadata.revisions)}" if metadata.revisions else "no revision"
    yield f"Backup {created.backup.name}: {human(created.backup.size_bytes)}, {tables}, {rows}, {files}, {revision}"
    yield f"  checked and on disk in {created.backup.path}"


def plan(found: RestorePlan) -> Iterator[str]:
    """What a restore will change, before it does."""
    yield f"Restoring {found.source.name} will change:"
    if found.verdict:
        now, after = (", ".join(one) or "none" for one in (found.live.revisions, found.source.revisions))
        yield f"  schema     revision {now} -> {after}: {found.verdict.reason}"
        when = "to run on the copy, before it goes live" if found.migrate else "to run afterwards"
        yield from (f"    {when}: {one.revision} {one.title}" for one in found.verdict.pending)
        yield from _rows_compared(found)
    if found.uploads:
        yield f"  uploads    {_changes(found.uploads)}"
    needs = ", ".join(f"{human(needed)} in {folder}" for folder, needed in found.needs.items())
    yield f"  space      {needs}"
    yield from (f"  note       {note}" for note in found.notes)
    yield "  A safety copy is made first; `undo` takes the restore back."


def _rows_compared(found: RestorePlan) -> Iterator[str]:
    yield "  rows               now -> after"
    yield from _compared(found.live.rows, found.source.facts.rows if found.source.facts else {})


def _compared(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        now, then = (str(rows[name]) if name in rows else "-" for rows in (before, after))
        yield f"    {shown(name)}: {now} -> {then}"


def _changes(summary: Summary) -> str:
    if not (summary.added or summary.changed or summary.removed):
        return "the same as in the backup"
    return (
        f"{summary.added:,} come back, {summary.changed:,} change, {summary.removed:,} are removed"
        f" ({human(summary.bytes)} to copy)"
    )


def restored(reach: Reach, done: Restored) -> Iterator[str]:
    """What was restored, the proof, and what is left to do."""
    yield f"Restored {done.source}."
    if done.rows:
        rows = counted(sum(done.rows.values()), "row")
        yield f"  proof      opens for writing, checks sound, {counted(len(done.rows), 'table')}, {rows}"
    if done.uploads:
        yield f"  uploads    {_changes(done.uploads)}"
    yield f"  before     kept in {done.safety}; take the restore back: {reach.tool('undo')}"
    if done.verdict:
        yield from next_steps(reach, done.verdict)
    if restart := reach.restart():
        yield f"The app goes on with the restored data; if it caches, restart it:  {restart}"
    else:
        yield "The app goes on with the restored data; restart it if it caches."


def next_steps(reach: Reach, verdict: SchemaVerdict) -> Iterator[str]:
    """The commands that bring the schema to this code, where there is something to do."""
    if verdict.relation == "behind":
        yield f"Schema mismatch: the database is {counted(len(verdict.pending), 'migration')} behind this code:"
        yield from (f"    {one.revision}  {one.title}" for one in verdict.pending)
        yield "Bring it to this code (the first line only confirms where it is):"
        yield f"    {reach.alembic('stamp ' + ' '.join(verdict.backup))}"
        yield f"    {reach.alembic('upgrade head')}"
    elif verdict.relation in ("unknown", "branched"):
        yield f"Schema mismatch: {verdict.reason} The code may not work with it."
    elif verdict.relation == "unversioned":
        yield "Schema: the backup has no Alembic revision. Only if you know which one its tables are at:"
        yield f"    {reach.alembic('stamp THAT_REVISION')}"


def deleted(backup: Backup) -> Iterator[str]:
    """Which backup is gone."""
    yield f"Deleted {backup.name} ({human(backup.size_bytes)})."


def dumped(tables: int, rows: int, target: Path) -> Iterator[str]:
    """What was written as SQL text, and where."""
    yield f"Dumped {counted(tables, 'table')}, {counted(rows, 'row')} to {target}"


def migrated(reach: Reach, done: Migrated) -> Iterator[str]:
    """What was migrated, and what it did to the rows."""
    yield f"Migrated: {counted(len(done.migrations), 'migration')} in {done.seconds:.1f} s"
    yield from (f"    {one.revision}  {one.title}" for one in done.migrations)
    yield f"  rehearsed  on a copy first, in {done.rehearsal_seconds:.1f} s"
    yield "  rows               before -> after"
    yield from _compared(done.rows_before, done.rows_after)
    yield f"  before     kept in {done.backup}; take the migration back: {reach.tool('undo')}"


def findings(found: list[Finding]) -> Iterator[str]:
    """What the doctor saw, what is wrong last."""
    for finding in found:
        yield f"{_MARKS[finding.level]}  {finding.text}"
        if finding.mend:
            yield f"         mend: {finding.mend}"


def history(settings: Settings, found: Sequence[Operation], left_out: int) -> Iterator[str]:
    """What was done, newest first."""
    if not found:
        yield "Nothing is in the history that was asked for."
        return
    head = ("STARTED", "COMMAND", "RESULT", "TOOK", "SIZE", "BY", "WHAT")
    yield from table(head, (_operation_row(settings, operation) for operation in found))
    if left_out:
        yield f"{counted(left_out, 'earlier operation')}: --limit {len(found) + left_out} shows all."


def _operation_row(settings: Settings, one: Operation) -> tuple[str, ...]:
    started = settings.local(one.started_at).strftime("%Y-%m-%d %H:%M:%S")
    took = f"{one.duration_seconds:.1f} s" if one.duration_seconds is not None else "-"
    size = human(one.size_bytes) if one.size_bytes is not None else "-"
    code = f" ({one.exit_code})" if one.exit_code else ""
    names = ", ".join(one.backups[:3]) + (f" and {len(one.backups) - 3} more" if len(one.backups) > 3 else "")
    what = "; ".join(shown(part) for part in (names, one.note, one.error, *one.warnings[:1]) if part)
    by = shown(f"{one.who.user} ({one.who.through})")
    return started, shown(one.command), f"{one.outcome}{code}", took, size, by, what


def status(settings: Settings, found: Status) -> Iterator[str]:
    """One sentence that says it all; what else there is; the numbers."""
    yield found.sentence
    for reason in found.reasons[1:]:
        yield f"  also       {reason.text} Type: {reason.mend}"
    numbers = found.numbers
    yield f"  checked    {_when(settings, numbers.newest_checked, numbers.newest_checked_at)}"
    yield f"  proven     {_when(settings, numbers.newest_proven, numbers.newest_proven_at)}"
    yield f"  next run   {_when(settings, 'planned', numbers.next_run_at)}"
    yield from _kept_backups(settings, numbers)
    if numbers.free_bytes is not None:
        days = numbers.days_left
        lasts = "" if days is None else f", enough for {counted(int(days), 'day')} at this rate"
        yield f"  free       {human(numbers.free_bytes)}{lasts}"


def _kept_backups(settings: Settings, numbers: Numbers) -> Iterator[str]:
    kinds, states = (
        ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
        for counts in (numbers.by_kind, numbers.by_state)
    )
    yield f"  backups    {numbers.backups:,}" + (f" ({kinds}; {states})" if numbers.backups else "")
    if numbers.oldest_at and numbers.newest_at:
        days = (settings.local(moment).strftime("%Y-%m-%d") for moment in (numbers.oldest_at, numbers.newest_at))
        yield f"  made       {' to '.join(days)}"
    sizes = f"{human(numbers.total_bytes)}, on disk {human(numbers.unique_bytes)}"
    yield f"  size       {sizes}, growing by {human(numbers.growth_bytes_per_day)} a day"


def _when(settings: Settings, name: str | None, moment: datetime | None) -> str:
    return f"{name}, {settings.local(moment).strftime('%Y-%m-%d %H:%M')}" if moment else "none"


def _ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 60 else "just now"
