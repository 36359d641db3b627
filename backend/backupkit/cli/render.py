"""Results as text: lists, plans, what was done and what to do next. Most functions yield lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from backupkit.cli.tables import Terminal, drawn, table
from backupkit.fs.space import format_bytes
from backupkit.model.backup import UPLOADS_FOLDER
from backupkit.model.durations import ago
from backupkit.model.names import counted, few, printable, printable_text

if TYPE_CHECKING:
    from backupkit.archive.export import Exported, Imported
    from backupkit.backup.make import Created
    from backupkit.backup.salvage import Salvaged, SalvagedTable
    from backupkit.config.deployment import Deployment
    from backupkit.config.editor import Changed
    from backupkit.config.settings import Settings
    from backupkit.migrations.migrate import Migrated
    from backupkit.model.backup import Backup, Metadata, References, SchemaVerdict, UploadsFacts
    from backupkit.model.operation import Operation
    from backupkit.monitoring.doctor import Finding
    from backupkit.monitoring.notify.sender import Delivery
    from backupkit.monitoring.status import Numbers, Status
    from backupkit.remotes.base import RemoteBackup
    from backupkit.remotes.copies import Copies, RemoteState
    from backupkit.remotes.pull import Pulled
    from backupkit.remotes.push import Pushed
    from backupkit.restore.lay_out import LaidOut, Layout
    from backupkit.restore.restore import Restored, RestorePlan
    from backupkit.retention.prune import Pruned, PrunePlan
    from backupkit.retention.rules import Policy, Verdict
    from backupkit.scheduling.planner import DueRun
    from backupkit.scheduling.run import StepResult
    from backupkit.sqlite.rows import Changes
    from backupkit.upload_files.diff import Summary
    from backupkit.verify.files import ListedFile
    from backupkit.verify.verify import Verified, VerifiedFile

RAW = "the database could not be read when this was made, and cannot be restored"
_TEN_YEARS = 3650  # days
_MARKS = {"fine": "ok     ", "note": "note   ", "warning": "warning", "wrong": "WRONG  "}


def listing(settings: Settings, found: list[Backup], screen: Terminal | None = None) -> Iterator[str]:
    """Yield a table of the backups, newest first; on a terminal with their age."""
    from backupkit.repository import separate_disk, store

    if not found:
        if missing := separate_disk.why_missing(settings):
            yield missing
            return
        yield f"There are no backups in {settings.dir} yet. Make one: {settings.deployment.tool('backup')}"
        if there := store.left_beside(settings):
            yield f"There are backups in {there}, where an earlier version kept them: set BACKUP_DIR to that."
        return
    head = ("NAME", "MADE", "KIND", "SIZE", "ADDS", "REVISION", "STATE", "NOTE")
    rows = [backup_row(settings, backup) for backup in found]
    order = ("NAME", "AGE", "SIZE", "STATE", "KIND", "NOTE", "REVISION", "ADDS", "MADE")
    yield from drawn(screen, head, rows, order, 4, map(_age, found))


def _age(backup: Backup) -> dict[str, str]:
    return {"AGE": _ago(backup.metadata.created_at) if backup.metadata else "-"}


def backup_row(settings: Settings, backup: Backup) -> tuple[str, ...]:
    """Return the cells of one backup: name, made, kind, size, adds, revision, state, note."""
    metadata = backup.metadata
    if metadata is None:
        return backup.name, "-", "-", "-", "-", "-", "damaged", backup.error
    marks = (["unusual"] if backup.unusual else []) + (["pinned"] if backup.pinned else [])
    state = ", ".join((state_and_day(settings, backup), *marks))
    made = settings.local(metadata.created_at).strftime("%Y-%m-%d %H:%M:%S")
    revision = printable(metadata.schema_name.replace(", ", ",")) or "-"
    size, adds = format_bytes(backup.size_bytes), format_bytes(backup.unique_bytes)
    return backup.name, made, metadata.kind, size, adds, revision, state, printable(remark(backup))


def remark(backup: Backup) -> str:
    """Return why the backup is damaged or not proven, and its note."""
    why = backup.flaws[0].text if backup.flaws else backup.error or backup.not_proven
    return " · ".join(filter(None, (why, backup.metadata.note if backup.metadata else "")))


def state_and_day(settings: Settings, backup: Backup) -> str:
    """Return the state, with the day of the check or test restore unless that was when the backup was made."""
    when = backup.proven_at if backup.state == "proven" else backup.checked_at
    if when is None or (backup.metadata and when == backup.metadata.created_at):
        return backup.state
    return f"{backup.state} {settings.local(when):%Y-%m-%d}"


def details(settings: Settings, backup: Backup) -> Iterator[str]:
    """Yield one backup in full."""
    yield f"{backup.name}  ({backup.path})"
    if backup.metadata is None:
        yield f"  state      damaged: {backup.error}"
        return
    metadata = backup.metadata
    yield f"  made       {settings.local(metadata.created_at).isoformat(sep=' ')} ({_ago(metadata.created_at)})"
    yield f"  kind       {metadata.kind}{', pinned' if backup.pinned else ''}"
    yield from _state(settings, backup)
    unique = format_bytes(backup.unique_bytes)
    yield f"  size       {format_bytes(backup.size_bytes)}, of which {unique} are in no older backup"
    looked_at = " (accepted)" if backup.accepted else ""
    yield from (f"  unusual    {printable(sentence)}{looked_at}" for sentence in metadata.anomalies)
    if metadata.note:
        yield f"  note       {printable(metadata.note)}"
    yield f"  revision   {printable(metadata.schema_name) or 'none'}"
    yield from _contents(metadata)


def _state(settings: Settings, backup: Backup) -> Iterator[str]:
    """Yield the state and its flaws, and when the backup was checked and proven."""
    why = backup.error or (RAW if backup.state == "raw" else "")
    yield f"  state      {printable(f'{backup.state}: {why}' if why else backup.state)}"
    yield from (f"    {printable(flaw.text)}" for flaw in backup.flaws)
    if backup.checked_at:
        yield f"  checked    {settings.local(backup.checked_at).isoformat(sep=' ')} ({_ago(backup.checked_at)})"
    if backup.proven_at:
        took = f", restored in {backup.recovery_seconds:.1f} s" if backup.recovery_seconds is not None else ""
        yield f"  proven     {settings.local(backup.proven_at).isoformat(sep=' ')} ({_ago(backup.proven_at)}){took}"
    if backup.not_proven:
        yield f"  not proven {printable(backup.not_proven)}"


def _contents(metadata: Metadata) -> Iterator[str]:
    if git := metadata.git:
        where = f"{git.branch or 'detached'} {git.short}{' (changed files)' if git.dirty else ''}: {git.subject}"
        yield f"  code       {printable(where)}"
    if facts := metadata.database:
        engine = f"SQLite {facts.sqlite_version}, journal mode {facts.journal_mode}"
        yield printable(f"  database   {metadata.database_file}, {format_bytes(facts.size)}, {engine}")
        yield from (f"    does not match its table: {printable(flaw)}" for flaw in facts.index_flaws)
        yield from (f"    {printable(name)}: {counted(rows, 'row')}" for name, rows in facts.rows.items())
    if uploads := metadata.uploads:
        yield f"  uploads    {counted(uploads.files, 'file')}, {format_bytes(uploads.bytes)}"
        if metadata.exclude:
            yield f"    excluded: {few(metadata.exclude, 10)}"
        if metadata.excluded_folders:
            yield f"    excluded by a file in them: {few(metadata.excluded_folders, 10)}"
        yield from _links_out(uploads)
        yield from _references(metadata.references, "    ")
        yield from (f"    warning: {printable(warning)}" for warning in uploads.warnings)
    elif not metadata.uploads_included:
        yield "  uploads    not in this backup"
    for part in metadata.parts[1:]:
        for name, held in part.database_files.items():
            yield printable(f"  database   {name}, {format_bytes(held.size if held else 0)}")
            tables = held.rows.items() if held else ()
            yield from (f"    {printable(table)}: {counted(rows, 'row')}" for table, rows in tables)
    for name, tree in metadata.tree_facts.items():
        if name != UPLOADS_FOLDER and tree:
            yield f"  {name}: {counted(tree.files, 'file')}, {format_bytes(tree.bytes)}"
            yield from (f"    warning: {printable(warning)}" for warning in tree.warnings)


def verified(settings: Settings, done: list[Verified]) -> Iterator[str]:
    """Yield a line for each backup, and one for each of its flaws."""
    if not done:
        yield f"There is nothing to verify in {settings.dir}."
    for one in done:
        yield f"{one.backup.name}: {_outcome(one)}"
        yield from (f"  {printable(flaw.text)}" for flaw in one.flaws)
        if one.more:
            yield f"  and {one.more:,} more"
        yield from _references(one.references, "  ")


def _references(found: References | None, indent: str) -> Iterator[str]:
    """Yield the broken references between rows and uploads, or one line if there are none."""
    from backupkit.backup.references import sentences

    if found is None:
        return
    told = list(sentences(found))
    rows = sum(one.rows for one in found.columns)
    yield from (f"{indent}{one}" for one in told or [f"each of {counted(rows, 'row')} finds its file"])


def _outcome(one: Verified) -> str:
    backup = one.backup
    if one.flaws:
        return "damaged"
    if one.failure:
        return printable(one.failure.message)
    if backup.state == "raw":
        return f"raw: {RAW}; the files are as they were found"
    if backup.state == "unchecked":
        return "unchecked, having no checksums; what can be looked at is sound"
    if one.took is not None:
        return f"proven: restored in {one.took:.1f} s"
    return "sound: every byte is as it was written, and the database is whole"


def verified_file(found: VerifiedFile) -> Iterator[str]:
    """Yield what a plain database file holds, or its flaws."""
    if found.flaws:
        yield f"{printable(str(found.path))}: damaged"
        yield from (f"  {printable(flaw.text)}" for flaw in found.flaws)
        return
    revision = printable(", ".join(found.revisions)) or "none"
    yield f"{printable(str(found.path))}: sound, {_amount(found.rows)}, revision {revision}"
    if found.verdict:
        yield f"  {printable(found.verdict.reason)}"


def made(created: Created) -> Iterator[str]:
    """Yield what was backed up and where it is; then new data, links out of the uploads, and references, if any."""
    metadata = created.backup.metadata
    assert metadata is not None and metadata.database is not None
    databases = [one for one in metadata.database_files.values() if one]
    several = f"{len(databases)} databases with " if len(databases) > 1 else ""
    amount = several + _amount(*(one.rows for one in databases))
    trees = [one for one in metadata.tree_facts.values() if one]
    files = counted(sum(one.files for one in trees), "upload") if trees else "no uploads"
    revision = f"revision {printable(metadata.schema_name)}" if metadata.schema_name else "no revision"
    size = format_bytes(created.backup.size_bytes)
    yield f"Backup {created.backup.name}: {size}, {amount}, {files}, {revision}"
    yield f"  checked and on disk in {created.backup.path}"
    if metadata.linked_from:
        new = format_bytes(created.backup.unique_bytes)
        yield f"  new data   {new} (the rest is shared with {metadata.linked_from})"
    if metadata.uploads:
        yield from _links_out(metadata.uploads)
    yield from _references(metadata.references, "  references ")


def _amount(*rows: Mapping[str, int]) -> str:
    """Return how many tables there are in these databases, and how many rows in all of them."""
    return f"{counted(sum(map(len, rows)), 'table')}, {counted(sum(sum(one.values()) for one in rows), 'row')}"


def _links_out(uploads: UploadsFacts) -> Iterator[str]:
    if count := uploads.links_out:
        lead = "1 link leads" if count == 1 else f"{count:,} links lead"
        yield f"  links      {lead} out of the uploads: what is there is in no backup (`doctor` names them)"


def plan(found: RestorePlan) -> Iterator[str]:
    """Yield what a restore will change."""
    chosen = found.source.chosen
    what = f"{counted(len(chosen.leaves), 'upload')} of {found.source.name}" if chosen else found.source.name
    yield f"Restoring {what} will change:"
    if chosen:
        yield f"  chosen     {few(sorted(chosen.leaves or chosen.paths), 10)}"
    if found.verdict:
        now, after = (", ".join(one) or "none" for one in (found.live.revisions, found.revisions_after))
        revisions = "no revision" if now == after == "none" else f"revision {now} -> {after}"
        yield f"  schema     {revisions}: {found.verdict.reason}"
        when = "to run on the copy, before it goes live" if found.migrate else "to run afterwards"
        yield from (f"    {when}: {one.revision} {one.title}" for one in found.verdict.pending)
        yield from _rows_compared(found)
    if found.uploads:
        yield f"  uploads    {_changes(found.uploads, 'to copy')}"
    for one in found.others:
        yield from _further_plan(one)
    yield from _verified_share(found)
    needs = ", ".join(f"{format_bytes(needed)} in {folder}" for folder, needed in found.needs.items())
    yield f"  space      {needs}"
    yield from (f"  note       {note}" for note in found.notes)
    if found.can_undo:
        yield "  A safety copy is made first; `undo` takes the restore back."
    else:
        yield "  This restore cannot be undone: there is no database that could be copied first."


def _verified_share(found: RestorePlan) -> Iterator[str]:
    """Yield how much of the backup was compared with its checksums, and how much will be while it is copied."""
    if not found.source.has_checksums:
        return
    if not found.source.verify_while_staging:
        yield "  verified   all of it"
        return
    size = sum(one.uploads.bytes for one in found.each if one.uploads)
    copied = f"; {format_bytes(size)} of uploads while they are copied, before anything changes" if size else ""
    yield f"  verified   all that is used{copied}"


def _further_plan(found: RestorePlan) -> Iterator[str]:
    """Yield what a restore will change of a further database or tree."""
    name = printable(found.source.part)
    if found.uploads:
        yield f"  {name}: {_changes(found.uploads, 'to copy')}"
    if found.source.database:
        after = ", ".join(found.revisions_after)
        yield f"  {name}: {found.source.database.name}{f', revision {after}' if after else ''}"
        pending = found.verdict.pending if found.verdict else ()
        yield from (f"    to run: {one.revision} {one.title}" for one in pending)
        yield from (f"  {line}" for line in _rows_compared(found))
    yield from (f"    note     {note}" for note in found.notes)


def _rows_compared(found: RestorePlan) -> Iterator[str]:
    before, after, changes = found.live.rows, found.rows_after, found.live.changes
    names = sorted({*before, *after})
    same = [name for name, one in changes.items() if not one.total and before.get(name) == after.get(name)]
    unknown = [name for name in names if name in before and name in after and name not in changes]
    yield "  rows               now -> after"
    for name in names:
        if name not in same:
            yield f"    {printable(name)}: {_count_change(before, after, name)}{_row_changes(changes.get(name))}"
    if same:
        yield f"    unchanged: {counted(len(same), 'table')}"
    if unknown:
        yield f"    not compared row by row (other columns, or the time was over): {few(unknown, 5)}"


def _row_counts(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    names = sorted({*before, *after})
    other = [name for name in names if before.get(name) != after.get(name)]
    yield from (f"    {printable(name)}: {_count_change(before, after, name)}" for name in other)
    if len(other) < len(names):
        yield f"    as many rows as before: {counted(len(names) - len(other), 'table')}"


def _count_change(before: Mapping[str, int], after: Mapping[str, int], name: str) -> str:
    now, then = (str(rows[name]) if name in rows else "-" for rows in (before, after))
    return f"{now} -> {then}"


def _row_changes(changes: Changes | None) -> str:
    """Return how many rows differ, or an empty text if that is unknown."""
    return f" ({_counts(changes) or 'no row differs'})" if changes else ""


def _counts(changes: Changes | Summary) -> str:
    counts = ((changes.added, "restored"), (changes.changed, "changed"), (changes.removed, "removed"))
    return ", ".join(f"{number:,} {word}" for number, word in counts if number)


def _changes(summary: Summary, copied: str) -> str:
    counts = _counts(summary)
    contents = f"{counts} ({format_bytes(summary.bytes)} {copied})" if counts else "the same as in the backup"
    number = summary.with_new_rights
    return f"{contents}; {number:,} with another mode or owner" if number else contents


def restored(deployment: Deployment, done: Restored) -> Iterator[str]:
    """Yield what was restored, how it was checked, and what is left to do."""
    yield f"Restored {done.source}."
    if done.rows:
        found = "every page as restored" if done.has_same_pages else "SQLite's quick check passed"
        yield f"  proof      writable, {found}, {_amount(done.rows)}"
    if done.uploads:
        yield f"  uploads    {_changes(done.uploads, 'copied')}"
    for name, part in done.parts.items():
        yield f"  {printable(name)}: {_changes(part.uploads, 'copied') if part.uploads else _amount(part.rows)}"
    yield f"  before     {_undo_hint(deployment, done)}"
    if done.verdict:
        yield from next_steps(deployment, done.verdict)
    if restart := deployment.restart():
        yield f"If the app keeps data in memory, restart it:  {restart}"
    else:
        yield "If the app keeps data in memory, restart it."


def files(
    settings: Settings, backup: str, found: Sequence[ListedFile], screen: Terminal | None = None
) -> Iterator[str]:
    """Yield a table of the uploads of a backup, and whether each live one is the same, changed or missing."""
    if not found:
        yield f"There are no files in the uploads of {backup}."
        return
    head = ("SIZE", "CHANGED", "LIVE", "PATH")
    rows = [
        (
            format_bytes(one.size_bytes) if one.form == "file" else one.form,
            f"{settings.local(one.changed_at):%Y-%m-%d %H:%M:%S}",
            one.live,
            printable(one.path) + (f" -> {printable(one.target)}" if one.target else ""),
        )
        for one in found
    ]
    yield from drawn(screen, head, rows, ("LIVE", "SIZE", "PATH", "CHANGED"), 3)


def layout(found: Layout) -> Iterator[str]:
    """Yield where a backup will be laid out."""
    yield f"Restoring {found.backup.name} to {found.target} will write:"
    if found.database_file:
        yield f"  database   {found.database_file}"
    if found.uploads_folder:
        yield f"  uploads    {found.uploads_folder}"
    yield from (f"  {name}: {found.target / path}" for name, path in found.others.items())
    if found.mask:
        yield f"  mask       {printable(found.mask.file)}: {counted(len(found.mask.statements), 'statement')}"
    yield f"  space      {format_bytes(found.needs)} at most"
    yield from (f"  note       {note}" for note in found.notes)
    yield "  Nothing live is touched."


def layout_from(found: RemoteBackup, remote: str, target: Path) -> Iterator[str]:
    """Yield which backup of a remote will be laid out; its paths are unknown until it is fetched."""
    made = f"{found.kind}, made on {found.created_at:%Y-%m-%d %H:%M}"
    yield f"Restoring {printable(found.name)} from {printable(remote)} to {target}: {made}."
    yield f"  space      {format_bytes(found.size_bytes)} to fetch; then it is checked, and what is in it is known"
    yield "  Nothing live is touched."


def laid_out(done: LaidOut) -> Iterator[str]:
    """Yield what was laid out and where, then how to look at it, and the paths the app needs to run on it."""
    found = done.layout
    compared = "every byte compared with its checksum" if done.is_compared else "unchecked, having no checksums"
    yield f"Restored {found.backup.name} to {found.target}: {compared}. Nothing live was touched."
    yield from (f"  note       {note}" for note in found.notes)
    if found.database_file:
        yield f"  database   {found.database_file}: SQLite's quick check passed, {_amount(done.rows)}"
    if found.mask:
        yield f"  masked     by {printable(found.mask.file)}: every text is changed but in the columns that it allows"
    if done.verdict:
        yield f"  schema     revision {', '.join(done.verdict.backup) or 'none'}: {done.verdict.reason}"
    if found.uploads_folder:
        yield f"  uploads    {found.uploads_folder}: {counted(done.files, 'file')}"
    yield from (f"  {name}: {found.target / path}" for name, path in found.others.items())
    yield from _first_commands(found)


def _first_commands(found: Layout) -> Iterator[str]:
    if found.database_file is None:
        yield f"Look at it:  ls -R {shlex.quote(str(found.uploads_folder or found.target))}"
        return
    yield f"Look at it:  sqlite3 {shlex.quote(str(found.database_file))}"
    places = [f"BACKUP_DATABASE={shlex.quote(str(found.database_file))}"]
    if found.uploads_folder:
        places.append(f"BACKUP_UPLOADS={shlex.quote(str(found.uploads_folder))}")
    yield f"To start the app on it, give it these paths, as it takes them:  {' '.join(places)}"


def put_back(deployment: Deployment, done: Restored) -> Iterator[str]:
    """Yield which uploads were put back, and how to undo that."""
    assert done.uploads is not None
    yield f"Put back from {done.source}: {_changes(done.uploads, 'copied')}"
    yield f"  before     {_undo_hint(deployment, done)}"


def _undo_hint(deployment: Deployment, done: Restored) -> str:
    if done.can_undo:
        return f"kept in {done.safety}; take the restore back: {deployment.tool('undo')}"
    if not done.kept:
        return "there was no database; this restore cannot be undone"
    left = f"; what can be read of it: {deployment.tool(f'salvage {done.safety}')}" if done.safety else ""
    return f"the broken database, as files: {', '.join(map(str, done.kept))}; this restore cannot be undone{left}"


def next_steps(deployment: Deployment, verdict: SchemaVerdict) -> Iterator[str]:
    """Yield the commands that bring the schema to this code, if there is something to do."""
    if verdict.relation == "behind":
        yield f"Schema mismatch: the database is {counted(len(verdict.pending), 'migration')} behind this code:"
        yield from (f"    {one.revision}  {one.title}" for one in verdict.pending)
        yield "If a migration is what went wrong, correct it first: it would do the same again."
        yield "Bring it to this code, with a backup before and a way back:"
        yield f"    {deployment.tool(verdict.command)}"
        if deployment.has_own_command:
            return
        yield "Or with Alembic alone (the first line only confirms where the database is):"
        yield f"    {deployment.alembic(f'stamp {shlex.join(verdict.backup)}')}"
        yield f"    {deployment.alembic(f'upgrade {verdict.target}')}"
    elif verdict.relation == "unreadable":
        yield f"The schema was not compared with this code: {verdict.reason}"
        yield f"    {verdict.needs}"
    elif verdict.relation == "no_migrations" and deployment.has_own_command:
        yield "If the schema is behind this code, bring it there, with a backup before and a way back:"
        yield f"    {deployment.tool('migrate')}"
    elif verdict.relation == "unknown":
        yield f"Schema mismatch: {verdict.reason} The code may not work with it."
    elif verdict.relation == "unversioned":
        yield "Schema: the backup has no Alembic revision. Only if you know which one its tables are at:"
        yield f"    {deployment.alembic('stamp THAT_REVISION')}"


def prune_plan(settings: Settings, found: PrunePlan, screen: Terminal | None = None) -> Iterator[str]:
    """Yield a table of the verdict and its reasons for each backup, and a summary."""
    if not found.verdicts:
        yield f"There are no backups in {settings.dir}."
        return
    head = ("NAME", "MADE", "KIND", "SIZE", "VERDICT", "WHY")
    rows = [_verdict_row(settings, one) for one in found.verdicts]
    order = ("NAME", "AGE", "SIZE", "VERDICT", "WHY", "KIND", "MADE")
    yield from drawn(screen, head, rows, order, 4, (_age(one.backup) for one in found.verdicts))
    if found.stopped:
        yield f"Nothing is removed: {printable(found.stopped)}."
    else:
        stay = len(found.verdicts) - len(found.removals)
        yield f"{counted(len(found.removals), 'backup')} to remove, {counted(stay, 'backup')} to keep."


def _verdict_row(settings: Settings, verdict: Verdict) -> tuple[str, ...]:
    backup, metadata = verdict.backup, verdict.backup.metadata
    made = settings.local(metadata.created_at).strftime("%Y-%m-%d %H:%M:%S") if metadata else "-"
    kind, size = (metadata.kind, format_bytes(backup.size_bytes)) if metadata else ("-", "-")
    return backup.name, made, kind, size, "keep" if verdict.keep else "REMOVE", printable(", ".join(verdict.reasons))


def pruned(done: Pruned) -> Iterator[str]:
    """Yield how many backups were removed, and how much space that freed."""
    freed = format_bytes(sum(backup.unique_bytes for backup in done.removed))
    yield f"Removed {counted(len(done.removed), 'backup')} ({freed})." if done.removed else "Nothing was removed."


def run(results: Sequence[StepResult]) -> Iterator[str]:
    """Yield the result of each step, and what to do about a failed one."""
    for result in results:
        yield f"{result.name:<8}{result.state:<10}{result.sentence}"
        yield from (f"{'':18}warning: {warning}" for warning in result.warnings)
        if result.error and result.error.hint:
            yield f"{'':18}next: {result.error.hint}"


def pushed(done: Sequence[Pushed]) -> Iterator[str]:
    """Yield what was pushed to each remote."""
    for one in done:
        came = [*one.backups, *([counted(one.points, "point")] if one.points else [])]
        got = f"got {', '.join(came)}" if came else "had everything already"
        there = counted(one.there, "backup") + (f", {counted(one.points_there, 'point')}" if one.points_there else "")
        failed = f"FAILED: {printable(one.failure.message)}" if one.failure else ""
        yield f"{one.remote}: {failed}" if failed else f"{one.remote}: {got}; {there} there"
        if one.failure and came:
            yield f"  before that it {got}"


def pulled(deployment: Deployment, done: Pulled) -> Iterator[str]:
    """Yield what was pulled, and what to type next."""
    backup = done.backup
    size = format_bytes(backup.size_bytes)
    if done.fetched:
        yield f"Pulled {backup.name} ({size}), all of it compared."
    else:
        yield f"{backup.name} is here already ({size}); nothing was pulled."
    if done.points:
        yield f"  {counted(done.points, 'point')} of rewind pulled too: {deployment.tool('rewind')}"
    yield f"  on disk in {backup.path}; put it back: {deployment.tool(f'restore {backup.name}')}"
    yield _stays(deployment, backup)


def remote_listing(
    settings: Settings,
    remote: str,
    found: list[RemoteBackup],
    here: Mapping[str, datetime | None],
    screen: Terminal | None = None,
) -> Iterator[str]:
    """Yield a table of the backups on a remote, newest first, and which of them are here too.

    `here` has, by name, when each local backup was made: another time means another backup of the same name.
    """
    if not found:
        yield f"There are no backups on {remote}. Push them: {settings.deployment.tool('push')}"
        return
    head = ("NAME", "MADE", "KIND", "SIZE", "REVISION", "HERE")
    rows = [
        (
            printable(one.name),
            settings.local(one.created_at).strftime("%Y-%m-%d %H:%M:%S"),
            printable(one.kind),
            format_bytes(one.size_bytes),
            printable(one.revision) or "-",
            _presence(one, here),
        )
        for one in found
    ]
    order = ("NAME", "AGE", "SIZE", "HERE", "KIND", "REVISION", "MADE")
    yield from drawn(screen, head, rows, order, 4, ({"AGE": _ago(one.created_at)} for one in found))


def _presence(one: RemoteBackup, here: Mapping[str, datetime | None]) -> str:
    if one.name not in here:
        return "no"
    return "yes" if here[one.name] == one.created_at else "another"


def removed_there(remote: str, done: Pruned) -> Iterator[str]:
    """Yield how many backups were removed from a remote."""
    yield f"Removed {counted(len(done.removed), 'backup')} from {remote}." if done.removed else "Nothing was removed."


def copies(settings: Settings, found: Copies, screen: Terminal | None = None) -> Iterator[str]:
    """Yield a table of the remotes, and the 3-2-1 rule: three copies, two media, one elsewhere."""
    head = ("REMOTE", "TYPE", "STATE", "BACKUPS", "BEHIND", "NEWEST")
    order = ("REMOTE", "STATE", "BACKUPS", "BEHIND", "NEWEST", "TYPE")
    yield from drawn(screen, head, [_remote_row(settings, one) for one in found.remotes], order, 4)
    counts = f"{counted(found.copies, 'copy', 'copies')} with the live data"
    media = counted(found.media, "medium", "media")
    yield f"3-2-1: {counts}, on {media}, {found.elsewhere} in another place: {_three_two_one(found)}."


def _three_two_one(found: Copies) -> str:
    return ", ".join(f"no {one.removeprefix('a ')}" for one in found.lacking) or "satisfied"


def _remote_row(settings: Settings, one: RemoteState) -> tuple[str, ...]:
    if one.failure:
        return one.name, one.type, "FAILED", "-", "-", printable(one.failure.message)
    when = f" ({settings.local(one.newest_at):%Y-%m-%d %H:%M})" if one.newest_at else ""
    state = "current" if one.is_current else "DAMAGED" if one.flaws else "behind" if one.behind else "empty"
    held = f"{one.backups} + {counted(one.points, 'point')}" if one.points else str(one.backups)
    return one.name, one.type, state, held, str(one.behind), f"{printable(one.newest or '-')}{when}"


def deliveries(found: Iterable[Delivery]) -> Iterator[str]:
    """Yield whether the message was sent to each address."""
    for one in found:
        yield f"NOT SENT  {one.address}: {one.error}" if one.error else f"sent      {one.address}"


def config(values: Mapping[str, tuple[object, str]], screen: Terminal | None = None) -> Iterator[str]:
    """Yield a table of the settings, their values and origins."""
    head = ("SETTING", "VALUE", "FROM")
    rows = [(name, value(setting), origin) for name, (setting, origin) in values.items()]
    # The variable is the setting's own name in capitals: a screen has more use for the value.
    short = [{"FROM": origin.split()[0]} for *_, origin in rows] if screen and screen.width else []
    yield from drawn(screen, head, rows, head, 1, short)


def value(setting: object) -> str:
    """Return a setting's value as text: empty for None, a table by its type or path, a secret without its value."""
    if isinstance(setting, dict):
        told = {name: few(one, 10) if isinstance(one, tuple) else _table_summary(one) for name, one in setting.items()}
        return ", ".join(f"{name} ({one})" for name, one in told.items())
    if isinstance(setting, tuple):
        return ", ".join(map(str, setting))
    return "" if setting is None else str(setting)


def _table_summary(table: object) -> str:
    """Return how to describe a table of `backup.toml`: the type of a remote, the path of a database or tree."""
    return str(getattr(table, "type", None) or getattr(table, "path", ""))


def changed(done: Changed) -> Iterator[str]:
    """Yield a setting as `backup.toml` has it now."""
    if done.value is None:
        unchanged = " Nothing was changed." if done.is_as_before else ""
        yield f"{done.setting} is not set in {done.file}: the default applies.{unchanged}"
    else:
        value = ", ".join(map(str, done.value)) if isinstance(done.value, list) else str(done.value)
        yield f"{done.setting} is {value or 'empty'} in {done.file}."


def deleted(backup: Backup) -> Iterator[str]:
    """Yield which backup was deleted."""
    yield f"Deleted {backup.name} ({format_bytes(backup.size_bytes)})."


def dumped(tables: int, rows: int, target: Path) -> Iterator[str]:
    """Yield what was written as SQL text, and where."""
    yield f"Dumped {counted(tables, 'table')}, {counted(rows, 'row')} to {target}"


def salvaged(deployment: Deployment, done: Salvaged) -> Iterator[str]:
    """Yield what could be read, table by table, where it is, and which backup to restore."""
    could = "Salvaged" if done.created else "Can be salvaged:"
    yield f"{could} {counted(done.rows, 'row')} in {counted(len(done.tables), 'table')} of {done.source}"
    if done.created:
        yield f"  on disk in {done.created.backup.path}"
    head = (
        "TABLE",
        "FOUND",
        *((f"IN {done.compared_with}", "MISSING", "CHANGED", "NEW") if done.compared_with else ()),
    )
    yield from table(head, [_salvaged_row(one, len(head)) for one in done.tables])
    yield done.advice
    if done.created and done.recommended:
        only = f" --only {done.only}" if done.only else ""
        yield f"  {deployment.tool(f'restore {done.recommended}{only}')}"


def _salvaged_row(one: SalvagedTable, columns: int) -> tuple[str, ...]:
    numbers = (one.found, one.in_backup, one.missing, one.changed, one.new)
    return (printable_text(one.name), *("-" if number is None else f"{number:,}" for number in numbers))[:columns]


def exported(done: Exported) -> Iterator[str]:
    """Yield what was exported, where it is, and whether it is encrypted."""
    how = "encrypted" if done.encrypted else "not encrypted"
    size = format_bytes(done.size_bytes)
    yield f"Exported {done.backup.name} to {done.path} ({size}, {how}), every checksum compared."


def imported(deployment: Deployment, done: Imported) -> Iterator[str]:
    """Yield what was imported, and what to type next."""
    backup = done.backup
    compared = "every checksum compared" if backup.state != "unchecked" else "unchecked"
    yield f"Imported {backup.name} ({format_bytes(backup.size_bytes)}), {compared}."
    yield f"  on disk in {backup.path}; what it would change: {deployment.tool(f'restore {backup.name} --dry-run')}"
    yield _stays(deployment, backup)


def _stays(deployment: Deployment, backup: Backup) -> str:
    from backupkit.repository import brought

    return f"  prune keeps it for {brought.DAYS} days; to keep it longer: {deployment.tool(f'pin {backup.name}')}"


def migrated(deployment: Deployment, done: Migrated) -> Iterator[str]:
    """Yield what was migrated or rehearsed, and the row counts before and after."""
    count = counted(len(done.migrations), "migration")
    is_live = done.backup is not None
    yield f"Migrated: {count} in {done.seconds:.1f} s" if is_live else f"{count} would run:"
    yield from (f"    {one.revision}  {one.title}" for one in done.migrations)
    yield f"  rehearsed  on a copy{' first' if is_live else ''}, in {done.rehearsal_seconds:.1f} s"
    yield "  rows               before -> after"
    yield from _row_counts(done.rows_before, done.rows_after)
    if is_live:
        yield f"  before     kept in {done.backup}; take the migration back: {deployment.tool('undo')}"
    else:
        yield "Nothing was changed."


def findings(found: list[Finding]) -> Iterator[str]:
    """Yield the findings of `doctor` in the order given, each with its fix."""
    for finding in found:
        yield f"{_MARKS[finding.level]}  {finding.text}"
        if finding.fix:
            yield f"         fix: {finding.fix}"


def history(
    settings: Settings, found: Sequence[Operation], left_out: int, screen: Terminal | None = None
) -> Iterator[str]:
    """Yield a table of the operations, newest first; on a terminal with their age, and durations in larger units."""
    if not found:
        yield "Nothing in the history matches."
        return
    head = ("STARTED", "COMMAND", "RESULT", "TOOK", "SIZE", "BY", "WHAT")
    rows = [operation_row(settings, operation) for operation in found]
    more = ({"AGE": _ago(one.started_at), "TOOK": _took(one.duration_seconds)} for one in found)
    order = ("COMMAND", "AGE", "SIZE", "RESULT", "TOOK", "WHAT", "STARTED", "BY")
    yield from drawn(screen, head, rows, order, 5, more)
    if left_out:
        yield f"{counted(left_out, 'earlier operation')}: --limit {len(found) + left_out} shows all."


def operation_row(settings: Settings, one: Operation) -> tuple[str, ...]:
    """Return the cells of one operation: started, command, result, took, size, by, what."""
    started = settings.local(one.started_at).strftime("%Y-%m-%d %H:%M:%S")
    took = f"{one.duration_seconds:.1f} s" if one.duration_seconds is not None else "-"
    size = format_bytes(one.size_bytes) if one.size_bytes is not None else "-"
    code = f" ({one.exit_code})" if one.exit_code else ""
    what = "; ".join(printable(part) for part in (few(one.backups), one.note, one.error, *one.warnings[:1]) if part)
    by = printable(f"{one.who.user} ({one.who.through})")
    return started, printable(one.command), f"{one.outcome}{code}", took, size, by, what


def operation(settings: Settings, one: Operation) -> Iterator[tuple[str, str]]:
    """Yield all details of one operation, each with its label."""
    yield "started", f"{settings.local(one.started_at)}"
    yield "ended", f"{settings.local(one.ended_at)}" if one.ended_at else "not ended"
    if one.duration_seconds is not None:
        yield "took", f"{one.duration_seconds:.1f} s"
    yield "result", f"{one.outcome}{f' ({one.exit_code})' if one.exit_code else ''}"
    yield "by", printable(f"{one.who.user}, through the {one.who.through}, process {one.who.pid}")
    yield from (("backup", printable(name)) for name in one.backups)
    if one.size_bytes is not None:
        yield "size", format_bytes(one.size_bytes)
    yield from ((label, printable(text)) for label, text in (("note", one.note), ("error", one.error)) if text)
    yield from (("warning", printable(warning)) for warning in one.warnings)
    yield from (("step", f"{printable(step.name)}, {step.seconds:.1f} s") for step in one.steps)


def status(settings: Settings, found: Status) -> Iterator[str]:
    """Yield the summary sentence, the further reasons, and the numbers."""
    yield found.sentence
    for reason in found.reasons[1:]:
        yield f"  also       {reason.text} Type: {reason.fix}"
    numbers = found.numbers
    yield f"  checked    {_when(settings, numbers.newest_checked, numbers.newest_checked_at)}"
    yield f"  proven     {_when(settings, numbers.newest_proven, numbers.newest_proven_at)}"
    yield f"  next run   {_when(settings, 'planned', numbers.next_run_at)}"
    yield from _kept_backups(settings, numbers)
    yield from _references(numbers.references, "  references ")
    if numbers.rewind_from and numbers.rewind_to:
        yield f"  rewind     {_rewind(settings, numbers)}"
    yield from _known_copies(settings, numbers.copies)
    if numbers.free_bytes is not None:
        days = numbers.days_left
        lasts = "" if days is None else f", enough for {days_in_words(days)} at the present rate"
        yield f"  free       {format_bytes(numbers.free_bytes)}{lasts}"
    bug = ", with the WAL-reset bug (see doctor)" if numbers.sqlite_wal_reset_bug else ""
    yield f"  SQLite     {numbers.sqlite_version}{bug}"


def _rewind(settings: Settings, numbers: Numbers) -> str:
    assert numbers.rewind_from and numbers.rewind_to
    begin, end = (f"{settings.local(at):%Y-%m-%d %H:%M}" for at in (numbers.rewind_from, numbers.rewind_to))
    often = numbers.rewind_interval_seconds or settings.rewind_interval
    slow = f", since {settings.rewind_interval:g} s are too short for this much data"
    slow = slow if often > settings.rewind_interval else ""
    size = format_bytes(numbers.rewind_bytes)
    tested = f"; test restore of {numbers.rewind_tested} passed" if numbers.rewind_tested else ""
    points = counted(numbers.rewind_points, "point")
    return f"{begin} to {end}, {points}, {size}; a look every {often:.0f} s{slow}{tested}"


def days_in_words(days: float) -> str:
    """Return the number of days; "more than ten years" for more, because such an estimate is not exact."""
    return "more than ten years" if days > _TEN_YEARS else counted(int(days), "day")


def due(settings: Settings, found: Sequence[DueRun]) -> Iterator[str]:
    """Yield a table of the future runs of a scheduler, the next first."""
    if not found:
        yield "Nothing is scheduled: see the settings enabled, automatic_daily and schedule."
        return
    rows = ((f"{settings.local(one.at):%Y-%m-%d %H:%M:%S %Z}", one.task, one.why) for one in found)
    yield from table(("WHEN", "WHAT", "WHY"), rows)


def _kept_backups(settings: Settings, numbers: Numbers) -> Iterator[str]:
    kinds, states = (
        ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
        for counts in (numbers.by_kind, numbers.by_state)
    )
    yield f"  backups    {numbers.backups:,}" + (f" ({kinds}; {states})" if numbers.backups else "")
    if numbers.oldest_at and numbers.newest_at:
        days = (settings.local(at).strftime("%Y-%m-%d") for at in (numbers.oldest_at, numbers.newest_at))
        yield f"  made       {' to '.join(days)}"
    sizes = f"{format_bytes(numbers.total_bytes)}, on disk {format_bytes(numbers.unique_bytes)}"
    yield f"  size       {sizes}, the backups grow by {format_bytes(numbers.growth_bytes_per_day)} a day"


def _known_copies(settings: Settings, found: Copies) -> Iterator[str]:
    """Yield each remote as it was when last asked, and the 3-2-1 rule."""
    for one in found.remotes:
        newest = f", the newest {printable(one.newest)}" if one.newest else ""
        asked = settings.local(one.asked_at).strftime("%Y-%m-%d %H:%M") if one.asked_at else "never"
        yield f"  on {one.name:<8}{one.backups:,}{newest}; still to be pushed: {one.behind}; asked: {asked}"
    yield f"  3-2-1      {_three_two_one(found)}"


def _when(settings: Settings, name: str | None, at: datetime | None) -> str:
    return f"{name}, {settings.local(at).strftime('%Y-%m-%d %H:%M')}" if at else "none"


def _took(seconds: float | None) -> str:
    """Return a duration as `1.2 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds is None or seconds < 60:
        return "-" if seconds is None else f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _ago(at: datetime) -> str:
    return ago((datetime.now(UTC) - at).total_seconds())


def policy(wanted: Policy) -> Iterator[str]:
    """Yield a sentence for each retention rule."""
    if wanted.newest:
        yield f"The newest {wanted.newest:,} of all, and no more{': of these' if wanted.of_kinds else ''}."
    if wanted.of_kinds or not wanted.newest:
        yield from _routine_rules(wanted)
        yield "All that were made by hand."
        yield from _safety_rules(wanted)
    good = counted(wanted.min_good, "good one")
    yield f"Whatever the rules say: the newest {good}, the newest proven, and what is pinned."


def _routine_rules(wanted: Policy) -> Iterator[str]:
    each = [counted(number, period) for period, number in wanted.periods]
    if wanted.last:
        yield f"Of those made automatically, the last {wanted.last:,}."
    if each:
        yield f"Of those made automatically, the newest of each of the last {', '.join(each)} that have one."
    if wanted.within:
        yield f"Of those made automatically, all that are at most {wanted.within} older than the newest."
    if not wanted.of_routine:
        yield "All that were made automatically."


def _safety_rules(wanted: Policy) -> Iterator[str]:
    for number, what in ((wanted.pre_restore, "restores"), (wanted.pre_migration, "migrations")):
        if number:
            yield f"Of those made before {what}, the last {number:,}."
    if wanted.safety_within:
        yield f"Of those made before restores and migrations, all at most {wanted.safety_within} older than the newest."
