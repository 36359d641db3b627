"""Status: whether the data is safe, and if not, why and how to fix it. Read-only.

`look` gathers the facts; `judge` derives the level, the reasons for it, and the numbers from them.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from backupkit.config.settings import Settings
from backupkit.fs import disk, space
from backupkit.model.backup import APART, Backup, Metadata, References
from backupkit.model.clock import Clock, utc_now
from backupkit.model.durations import interval, span
from backupkit.model.errors import BackupError, ExitCode, Refused, SourceBroken, SourceLocked
from backupkit.model.names import few, printable
from backupkit.model.operation import Operation
from backupkit.remotes import listing_cache
from backupkit.remotes.copies import Copies, RemoteState, known_copies
from backupkit.repository import history, order, reliable, separate_disk, sizes, store
from backupkit.repository.history import History
from backupkit.repository.reliable import CLOCKS_DIFFER
from backupkit.restore import unfinished
from backupkit.retention.rules import RetentionContext, counted_on
from backupkit.rewind import moments
from backupkit.rewind.chain import Timeline, counted_lost
from backupkit.scheduling import planner, scheduler_lock
from backupkit.sqlite import database, engine
from backupkit.upload_files import walk

Level = Literal["fine", "warning", "critical"]
LEVELS: tuple[Level, ...] = ("fine", "warning", "critical")  # the index is the exit code
_GRACE = 0.25  # of the interval: a backup that is later than that is missed
_MISSED = 2  # missed backups that are critical
_LOCK_TIMEOUT = 1  # seconds to wait for a locked database
_WINDOW, _DAY = timedelta(days=30), timedelta(days=1)


class Facts(Struct, frozen=True):
    """Everything that `judge` needs, as of `now`; the backups are newest first."""

    now: datetime
    backups: tuple[Backup, ...] = ()
    history: History = field(default_factory=History)
    free_bytes: int | None = None
    unfinished_restore: str | None = None
    drafts: int = 0
    error: str = ""
    database_trouble: BackupError | None = None
    uploads_trouble: str = ""
    has_uploads: bool = True
    copies: Copies = field(default_factory=Copies)
    holders: Mapping[str, str] = field(default_factory=dict)
    """A remote that held a copy of a damaged backup when last asked, by the name of the backup."""
    scheduler_seed: str | None = None
    """The seed of the running scheduler; None if none is running."""
    rewind: Timeline | None = None
    """The timeline of points; None if rewind is off."""


class Reason(Struct, frozen=True):
    """Why the level is not fine, in one sentence, and the command to type."""

    level: Level
    text: str
    fix: str


class Numbers(Struct, frozen=True):
    """The numbers, in bytes, seconds and days; None if unknown.

    `last_backup` is the newest reliable backup: of this app, usable, not a safety copy, not dated in the future;
    `last_whole` is the newest reliable one that also holds the uploads, if the app has any.
    `rewind_from` is the oldest restorable moment, `rewind_to` the newest point, and the interval the one in force.
    `last_proof_at` is the last successful test restore of any backup; `copies` is what each remote said when last
    asked. Growth covers the backups of the last 30 days; `days_left` compares the free space then and now.
    """

    now: datetime
    last_backup: str | None
    last_backup_at: datetime | None
    last_backup_age_seconds: float | None
    last_whole: str | None
    last_whole_at: datetime | None
    expected_interval_seconds: float
    newest_checked: str | None
    newest_checked_at: datetime | None
    newest_proven: str | None
    newest_proven_at: datetime | None
    last_proof_at: datetime | None
    next_run_at: datetime | None
    backups: int
    by_kind: Mapping[str, int]
    by_state: Mapping[str, int]
    oldest_at: datetime | None
    newest_at: datetime | None
    total_bytes: int
    unique_bytes: int
    growth_bytes_per_day: int
    free_bytes: int | None
    days_left: float | None
    unfinished_restore: bool
    drafts: int
    failures_since_success: int
    copies: Copies
    references: References | None = None
    rewind_points: int = 0
    rewind_bytes: int = 0
    rewind_from: datetime | None = None
    rewind_to: datetime | None = None
    rewind_interval_seconds: float | None = None
    rewind_tested: str | None = None
    """The point that last passed a test restore, by its name in the history."""
    sqlite_version: str = sqlite3.sqlite_version
    sqlite_wal_reset_bug: bool = field(default_factory=engine.has_wal_reset_bug)


class Status(Struct, frozen=True):
    """The level, a summary sentence, all reasons with the worst first, and the numbers."""

    level: Level
    sentence: str
    reasons: tuple[Reason, ...]
    numbers: Numbers


def status(settings: Settings, clock: Clock = utc_now) -> Status:
    """Return the status as of now. An unreadable folder becomes a reason, not an error.

    It does not wait for the lock of the backups folder, and at most one second for a locked database.
    """
    return judge(settings, look(settings, clock))


def last_backup(settings: Settings, clock: Clock = utc_now) -> Backup | None:
    """Return the newest reliable backup, which `Numbers` tells of; None if there is none.

    Raise `BackupError` if the backups folder cannot be read, or its disk is not mounted.
    """
    facts = _with_backups(settings, Facts(clock()))
    if facts.error:
        raise BackupError(facts.error)
    return _last(settings, facts)


def look(settings: Settings, clock: Clock = utc_now) -> Facts:
    """Read the facts from disk."""
    facts = _with_live_data(
        settings, _with_backups(settings, Facts(clock(), unfinished_restore=unfinished.describe(settings)))
    )
    if facts.error or not settings.dir.is_dir():
        return facts
    return replace(
        facts,
        history=history.read(settings.dir),
        free_bytes=disk.free_space(settings.dir),
        drafts=store.count_drafts(settings),
        copies=known_copies(settings, facts.backups),
        holders={
            backup.name: remotes[0]
            for backup in facts.backups
            if backup.state == "damaged" and (remotes := listing_cache.holders(settings, backup))
        },
        rewind=moments.timeline(settings) if settings.rewind else None,
        scheduler_seed=scheduler_lock.seed(settings.dir) if scheduler_lock.is_running_for(settings.dir) else None,
    )


def _with_live_data(settings: Settings, facts: Facts) -> Facts:
    """Add whether the live data exists and can be opened; there is no integrity check, as a backup makes one."""
    try:
        with database.snapshot(settings.database, _LOCK_TIMEOUT):
            pass  # it can be opened and has tables
    except BackupError as error:
        facts = replace(facts, database_trouble=error)
    if settings.uploads is None:
        return facts
    try:
        walk.require(settings.uploads)
    except BackupError as error:
        return replace(facts, uploads_trouble=error.message)
    return replace(facts, has_uploads=bool(os.listdir(settings.uploads)))


def _with_backups(settings: Settings, facts: Facts) -> Facts:
    if text := separate_disk.why_missing(settings):
        return replace(facts, error=text)
    try:
        found = sizes.with_unique_bytes(settings, store.all_backups(settings))
    except Refused as error:  # it is not a folder
        return replace(facts, error=error.message)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return replace(facts, error=f"The backups folder {settings.dir} cannot be read: {reason}.")
    return replace(facts, backups=tuple(backup for backup in found if backup.path.is_dir()))  # one may be deleted


def judge(settings: Settings, facts: Facts) -> Status:
    """Derive the status from the facts."""
    numbers = _numbers(settings, facts)
    rules = (
        _live_database,
        _live_uploads,
        _backups_folder,
        _age,
        _unfinished,
        _space,
        _last_backup,
        _uploads,
        _references,
        _damaged,
        _unusual,
        _future,
        _made_later,
        _proof,
        _remotes,
        _failures,
        _history,
        _rewind,
    )
    found = [reason for rule in rules for reason in rule(settings, facts, numbers)]
    found.sort(key=lambda reason: LEVELS.index(reason.level), reverse=True)
    level = found[0].level if found else "fine"
    return Status(level, _sentence(numbers, found), tuple(found), numbers)


def _sentence(numbers: Numbers, reasons: list[Reason]) -> str:
    if not reasons:
        ago = span(numbers.last_backup_age_seconds or 0)
        bare = "" if numbers.last_whole in (None, numbers.last_backup) else ", of the database alone"
        whole = f"; the last with the uploads is {numbers.last_whole}" if bare else ""
        return f"Your data is safe: the last backup, {numbers.last_backup}{bare}, was made {ago} ago{whole}."
    worst = reasons[0]
    begin = "Your data is at risk." if worst.level == "critical" else "Your data is backed up, with a warning."
    return f"{begin} {worst.text} Type: {worst.fix}"


# Rules


def _live_database(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    error = facts.database_trouble
    if isinstance(error, SourceLocked):
        yield Reason(
            "warning", f"The live database was not looked at. {error.message}", settings.deployment.tool("doctor")
        )
    elif error:
        fix = "restore latest" if isinstance(error, SourceBroken) and _last_whole(settings, facts) else "doctor"
        yield Reason("critical", error.message, settings.deployment.tool(fix))


def _live_uploads(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    """Report missing uploads; the folder may exist and be empty, such as a mount point without its mount."""
    last, text = _last_whole(settings, facts), facts.uploads_trouble
    held = last.metadata.uploads.files if last and last.metadata and last.metadata.uploads else 0
    if not text and not facts.has_uploads and held:
        text = f"The uploads folder {settings.uploads} is empty, and the last backup has {held:,} files."
    if text:
        yield Reason("critical", text, settings.deployment.tool("restore latest --only uploads" if last else "doctor"))


def _backups_folder(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    if facts.error:
        yield Reason("critical", facts.error, settings.deployment.tool("doctor"))


def _age(settings: Settings, facts: Facts, numbers: Numbers) -> Iterator[Reason]:
    age, fix = numbers.last_backup_age_seconds, settings.deployment.tool("backup")
    if age is None:
        if not facts.error:
            yield Reason("critical", _no_reliable_backup(settings, facts), fix)
        return
    level = _level_of_age(settings, facts, age / 3600)
    if level != "fine":
        seconds = _expected_seconds(settings, facts)
        expected = f"; one is expected every {interval(seconds)}" if seconds else ""
        yield Reason(level, f"The last backup, {numbers.last_backup}, is {span(age)} old{expected}.", fix)


def _no_reliable_backup(settings: Settings, facts: Facts) -> str:
    if not facts.backups:
        return f"There is no backup in {settings.dir} yet."
    return f"No backup in {settings.dir} can be relied on: each is damaged, a safety copy, another app's or misdated."


def _expected_seconds(settings: Settings, facts: Facts) -> float:
    """Return `expected_interval` if set; else the longest gap of the schedule, if it is set or a scheduler runs."""
    is_set = "expected_interval" in settings.given
    has_timetable = bool(settings.schedule) or facts.scheduler_seed is not None
    gap = planner.longest_gap(settings, facts.now) if has_timetable and not is_set else None
    return gap.total_seconds() if gap else settings.expected_interval * 3600


def _level_of_age(settings: Settings, facts: Facts, hours: float) -> Level:
    expected = _expected_seconds(settings, facts) / 3600 or float("inf")
    warning = settings.warning_age or expected * (1 + _GRACE)
    default = 2 * settings.warning_age if settings.warning_age else expected * (_MISSED + _GRACE)
    critical = settings.critical_age or default
    return "critical" if hours > critical else "warning" if hours > warning else "fine"


def _unfinished(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    if facts.unfinished_restore:
        yield Reason("critical", facts.unfinished_restore, settings.deployment.tool("recover"))


def _space(settings: Settings, facts: Facts, numbers: Numbers) -> Iterator[Reason]:
    free, fix = facts.free_bytes, settings.deployment.tool("list")
    if free is None:
        return
    last = _last_whole(settings, facts) or _last(settings, facts)
    if last and free < space.with_margin(last.size_bytes):
        room = f"{space.format_bytes(free)} are free, and the last one has {space.format_bytes(last.size_bytes)}"
        yield Reason("critical", f"There is no room for another backup in {settings.dir}: {room}.", fix)
    elif numbers.days_left is not None and numbers.days_left < settings.warning_free_days:
        level: Level = "critical" if numbers.days_left < settings.critical_free_days else "warning"
        lasts = span(numbers.days_left * 86400)
        yield Reason(level, f"The disk of {settings.dir} will be full in {lasts}, at the recent rate.", fix)


def _last_backup(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    last = _last_whole(settings, facts)
    if last and last.metadata and last.metadata.uploads and last.metadata.uploads.warnings:
        missing = len(last.metadata.uploads.warnings)
        text = f"The last backup, {last.name}, is not complete: it has {missing} warnings."
        yield Reason("warning", text, settings.deployment.tool(f"show {last.name}"))


def _references(settings: Settings, facts: Facts, numbers: Numbers) -> Iterator[Reason]:
    """Report rows whose file was missing when the last backup was made; an older backup may have the file."""
    if numbers.references and (count := numbers.references.missing):
        rows = "1 row names a file" if count == 1 else f"{count:,} rows name files"
        text = f"{rows} of the uploads that the last backup, {numbers.last_whole}, does not have."
        yield Reason("warning", text, settings.deployment.tool(f"show {numbers.last_whole}"))


def _uploads(settings: Settings, facts: Facts, numbers: Numbers) -> Iterator[Reason]:
    """Report if no recent backup holds the uploads: the app cannot be restored from the database alone."""
    if settings.uploads is None or not numbers.last_backup:
        return
    last, fix = _last_whole(settings, facts), settings.deployment.tool("backup")
    if last is None:
        yield Reason("critical", "No backup holds the uploads.", fix)
    elif last.name != numbers.last_backup:
        age = _age_of(facts, last).total_seconds()
        if _level_of_age(settings, facts, age / 3600) != "fine":
            yield Reason("warning", f"The last backup that holds the uploads, {last.name}, is {span(age)} old.", fix)


def _damaged(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    damaged = [backup for backup in facts.backups if backup.state == "damaged"]
    if damaged:
        held = [(one.name, facts.holders[one.name]) for one in damaged if one.name in facts.holders]
        command = f"pull {held[0][0]} --remote {held[0][1]}" if held else f"show {damaged[0].name}"
        copy = f" There is a copy of {held[0][0]} on {held[0][1]}." if held else ""
        text = f"Damaged backups: {few([one.name for one in damaged])}.{copy}"
        yield Reason("warning", text, settings.deployment.tool(command))


def _unusual(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    known = RetentionContext(settings.app_id, facts.now, settings.zone)
    for newest in counted_on(facts.backups, known):
        if newest.unusual:
            fix = settings.deployment.tool(f"show {newest.name}")
            text = f"{newest.name} is unusual: {newest.unusual[0]}. Until somebody has looked, prune removes nothing."
            yield Reason("warning", text, fix)


def _future(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    names = [backup.name for backup in facts.backups if backup.metadata and _is_future(facts, backup)]
    if names:
        text = f"Dated in the future: {few(names)}. The clock was wrong then, or is now."
        yield Reason("warning", text, "date")


def _made_later(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    """Report backups that are newer than their dates say, unless a person has pinned them."""
    pinned = {backup.name for backup in facts.backups if backup.pinned}
    later = order.made_later(settings, facts.backups, facts.history.operations, facts.now)
    if names := [name for name in later if name not in pinned]:
        ahead = later[names[0]].name
        text = f"Made after {ahead}, although dated earlier: {few(names)}. The clock was wrong."
        then = f"Look at each, then pin or delete it: `pin {names[0]}`, `delete {names[0]}`."
        then += f" If the clock was ahead when {ahead} was made, `delete {ahead}` ends it for all of them."
        yield Reason("warning", f"{text} {then}", settings.deployment.tool(f"show {names[0]}"))


def _proof(settings: Settings, facts: Facts, numbers: Numbers) -> Iterator[Reason]:
    """Report if the last test restore, or without one the oldest backup, is older than the limit."""
    hours, fix = _proof_limit(settings, facts), settings.deployment.tool("verify --test-restore")
    oldest = min((one.made_at for one in _reliable(settings, facts)), default=facts.now)
    ago = (facts.now - (numbers.last_proof_at or oldest)).total_seconds()
    if ago > hours * 3600:
        proven = f"for {span(ago)}" if numbers.last_proof_at else "yet"
        yield Reason("warning", f"No backup has passed a test restore {proven}.", fix)


def _proof_limit(settings: Settings, facts: Facts) -> float:
    """Return the limit in hours: the setting, or a limit from the schedule of a running scheduler, or infinity."""
    gap = planner.longest_gap(settings, facts.now, "test restore") if facts.scheduler_seed is not None else None
    default = gap.total_seconds() / 3600 * (_MISSED + _GRACE) if gap else float("inf")
    return settings.proven_within or default


def _remotes(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    """Report late or damaged copies, never as critical: the local backups decide whether the data is at risk."""
    hours = settings.carried_within or (_expected_seconds(settings, facts) / 3600 or float("inf")) * (_MISSED + _GRACE)
    for one in facts.copies.remotes:
        if one.flaws:
            text = f"The remote {one.name} holds something damaged: {printable(one.flaws[0])}."
            yield Reason("warning", text, settings.deployment.tool(f"verify --remote {one.name}"))
        elif text := _copy_problem(one, facts.now, hours):
            yield Reason("warning", text, settings.deployment.tool(f"push --remote {one.name}"))


def _copy_problem(remote: RemoteState, now: datetime, hours: float) -> str:
    """Return what is wrong with the copies on a remote; empty if nothing is, or they are at most `hours` late."""
    if remote.asked_at is None:
        return f"The remote {remote.name} was never reached: no copy is known to be there."
    if remote.gone:
        return listing_cache.gone_text(remote.name, remote.gone)
    if remote.newest_at is None:
        return f"There is no copy on the remote {remote.name} yet." if remote.behind else ""
    age = (now - remote.newest_at).total_seconds()
    if not remote.behind or age <= hours * 3600:
        return ""
    return (
        f"The newest copy on the remote {remote.name}, {remote.newest}, is {span(age)} old; "
        f"still to be pushed: {remote.behind}."
    )


def _failures(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    failed = _failed_since_success(facts)
    if failed:
        last = failed[0]
        words = " ".join([last.command, *last.backups[:1]])
        text = f"Failed since the last backup: {len(failed)}. The last was {words}: {last.error or last.outcome}"
        yield Reason("warning", text, settings.deployment.tool("history --failures"))


def _history(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    if facts.history.error:
        yield Reason("warning", facts.history.error, settings.deployment.tool("history"))


def _rewind(settings: Settings, facts: Facts, _numbers: Numbers) -> Iterator[Reason]:
    if facts.rewind is None:
        return
    if facts.rewind.lost:
        first = min(facts.rewind.lost, key=lambda one: one.moment is not None)
        text = f"{counted_lost(facts.rewind.lost)}: {first.why.rstrip('.')}."
        yield Reason("warning", text, settings.deployment.tool("rewind"))
    if facts.scheduler_seed is None:
        text = "Rewind is on, but no scheduler is running: no points are taken."
        yield Reason("warning", text, settings.deployment.tool("schedule"))
    elif (last := _last_look(settings, facts.rewind)) and facts.now - last > _allowed_delay(settings, facts.rewind):
        text = f"Rewind has not looked at the data since {settings.local(last):%Y-%m-%d %H:%M}: no points are taken."
        yield Reason("warning", f"{text} The scheduler's log says why.", settings.deployment.tool("rewind"))


def _last_look(settings: Settings, found: Timeline) -> datetime | None:
    newest = found.moments[-1].at if found.moments else None
    return scheduler_lock.last_look(settings.dir) or newest


def _allowed_delay(settings: Settings, found: Timeline) -> timedelta:
    """Return how late a look may be: 15 minutes, since a large backup delays looks, or three intervals if longer."""
    slow = found.moments[-1].tolerance if found.moments else timedelta(0)
    return max(slow, timedelta(seconds=3 * settings.rewind_interval), timedelta(minutes=15))


# Numbers


def _numbers(settings: Settings, facts: Facts) -> Numbers:
    last, whole = _last(settings, facts), _last_whole(settings, facts)
    dated = [backup.made_at for backup in facts.backups if backup.metadata]
    checked, proven = (_newest(settings, facts, date) for date in ("checked_at", "proven_at"))
    return Numbers(
        now=facts.now,
        last_backup=last.name if last else None,
        last_backup_at=last.made_at if last else None,
        last_backup_age_seconds=_age_of(facts, last).total_seconds() if last else None,
        last_whole=whole.name if whole else None,
        last_whole_at=whole.made_at if whole else None,
        expected_interval_seconds=_expected_seconds(settings, facts),
        newest_checked=checked.name if checked else None,
        newest_checked_at=checked.checked_at if checked else None,
        newest_proven=proven.name if proven else None,
        newest_proven_at=proven.proven_at if proven else None,
        last_proof_at=_last_proof_at(settings, facts),
        next_run_at=_next_run_at(settings, facts),
        backups=len(facts.backups),
        by_kind=dict(Counter(one.metadata.kind for one in facts.backups if one.metadata)),
        by_state=dict(Counter(one.state for one in facts.backups)),
        oldest_at=min(dated, default=None),
        newest_at=max(dated, default=None),
        total_bytes=sum(one.size_bytes for one in facts.backups),
        unique_bytes=sum(one.unique_bytes for one in facts.backups),
        growth_bytes_per_day=_growth(facts),
        free_bytes=facts.free_bytes,
        days_left=_days_left(facts),
        unfinished_restore=facts.unfinished_restore is not None,
        drafts=facts.drafts,
        failures_since_success=len(_failed_since_success(facts)),
        copies=facts.copies,
        references=whole.metadata.references if whole and whole.metadata else None,
        **_rewind_numbers(facts.rewind),
        rewind_tested=next((one.backups[0] for one in facts.history.operations if _is_proof(one, of_point=True)), None),
    )


def _rewind_numbers(found: Timeline | None) -> dict[str, Any]:
    if found is None or not found.moments:
        return {}
    points = [one for one in found.moments if one.point]
    return {
        "rewind_points": len(points),
        "rewind_bytes": found.size,
        "rewind_from": found.moments[0].at,
        "rewind_to": points[-1].at,
        "rewind_interval_seconds": points[-1].point.header.interval if points[-1].point else None,
    }


def _last_proof_at(settings: Settings, facts: Facts) -> datetime | None:
    """Return the last successful test restore, from the existing backups, and from the history for removed ones."""
    kept = [one.proven_at for one in _reliable(settings, facts) if one.proven_at]
    gone = [one.ended_at for one in facts.history.operations if _is_proof(one) and one.ended_at]
    return max((at for at in (*kept, *gone) if at <= facts.now + CLOCKS_DIFFER), default=None)


def _is_proof(operation: Operation, of_point: bool = False) -> bool:
    """Return whether a backup, or with `of_point` a point of rewind, passed a test restore."""
    is_point = any(name.startswith(moments.POINT) for name in operation.backups)
    return operation.command == "test-restore" and operation.has_succeeded and is_point == of_point


def _next_run_at(settings: Settings, facts: Facts) -> datetime | None:
    """Return when the running scheduler makes its next backup, or None."""
    if facts.scheduler_seed is None:
        return None
    past = planner.run_history_of(settings, facts.backups, facts.history.operations, facts.now, facts.scheduler_seed)
    due = planner.next_due(settings, past, facts.now)
    return next((max(one.at, facts.now) for one in due if one.task == "backup"), None)


def _growth(facts: Facts) -> int:
    """Return the bytes on disk per day of the backups of the last 30 days that still exist."""
    ages = {one.name: _age_of(facts, one) for one in facts.backups if one.metadata and not _is_future(facts, one)}
    days = min(max([_DAY, *ages.values()]), _WINDOW) / _DAY
    return round(sum(one.unique_bytes for one in facts.backups if ages.get(one.name, _WINDOW) < _WINDOW) / days)


def _days_left(facts: Facts) -> float | None:
    """Return the days until the disk is full, at the rate since the earliest operation of the last 30 days."""
    for known in reversed(facts.history.operations):
        if known.free_bytes is None or known.ended_at is None or facts.free_bytes is None:
            continue
        passed = facts.now - known.ended_at
        if _DAY <= passed <= _WINDOW:
            used = (known.free_bytes - facts.free_bytes) / (passed / _DAY)
            return round(facts.free_bytes / used, 1) if used > 0 else None
    return None


def _failed_since_success(facts: Facts) -> list[Operation]:
    """Return what failed since the last good backup and was not repeated successfully, newest first."""
    failed: list[Operation] = []
    later: list[Operation] = []
    for one in takewhile(lambda one: not _is_good_backup(one), facts.history.operations):
        if one.has_failed and not (_is_of_its_file(one) or any(_replaces(success, one) for success in later)):
            failed.append(one)
        elif one.has_succeeded:
            later.append(one)
    return failed


def _is_of_its_file(failed: Operation) -> bool:
    """Return whether a file that a person named was at fault: the data is as safe as before."""
    return failed.command in ("restore-dump", "import") and failed.exit_code == ExitCode.DAMAGED


def _replaces(success: Operation, failed: Operation) -> bool:
    """Return whether the later success did the failed work: same command, same remote, same backups."""
    if success.command != failed.command:
        return False
    if failed.command in ("push", "prune", "remotes"):
        return success.note == failed.note
    return failed.command not in ("verify", "test-restore") or set(failed.backups) <= set(success.backups)


def _is_good_backup(operation: Operation) -> bool:
    return operation.command == "backup" and operation.has_succeeded


def _last(settings: Settings, facts: Facts) -> Backup | None:
    return next(_reliable(settings, facts), None)


def _last_whole(settings: Settings, facts: Facts) -> Backup | None:
    """Return the newest reliable backup of database and uploads; a database-only backup does not count."""
    found = _reliable(settings, facts)
    return next((one for one in found if one.metadata and reliable.is_whole(settings, one.metadata)), None)


def _reliable(settings: Settings, facts: Facts) -> Iterator[Backup]:
    """Yield the reliable backups, newest first: usable, of this app, not dated in the future, not of a kind apart."""
    for backup in facts.backups:
        metadata = backup.metadata
        if metadata and backup.is_usable and is_own(settings, metadata) and not _is_future(facts, backup):
            yield backup


def is_own(settings: Settings, metadata: Metadata) -> bool:
    """Return whether the backup is of this app, and not of a kind apart, such as a safety copy."""
    return metadata.kind not in APART and reliable.is_own(settings, metadata)


def _newest(settings: Settings, facts: Facts, date: str) -> Backup | None:
    return next((backup for backup in _reliable(settings, facts) if getattr(backup, date)), None)


def _is_future(facts: Facts, backup: Backup) -> bool:
    return _age_of(facts, backup) < -CLOCKS_DIFFER


def _age_of(facts: Facts, backup: Backup) -> timedelta:
    return facts.now - backup.made_at
