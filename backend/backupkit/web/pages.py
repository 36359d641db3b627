"""The main pages and their actions: overview, backups, jobs, history, settings, recovery sheet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from backupkit.cli import render, tasks
from backupkit.cli.filters import FILTERS, has_words
from backupkit.cli.host import git_facts, host
from backupkit.cli.task import Task
from backupkit.config.settings import Settings, origins
from backupkit.fs.space import format_bytes
from backupkit.migrations import schema
from backupkit.model.backup import Backup, BackupRequest, Metadata, SchemaVerdict, UploadsFacts
from backupkit.model.errors import BackupError, NoSuchBackup
from backupkit.model.events import EventListener, silence
from backupkit.monitoring import log
from backupkit.monitoring.notify import messages
from backupkit.monitoring.recovery_kit import copies_of, recovery_kit
from backupkit.monitoring.report_facts import report
from backupkit.remotes import listing_cache
from backupkit.remotes.base import RemoteBackup
from backupkit.remotes.pull import pull_backup
from backupkit.remotes.registry import look_at_remotes, prepare_remote
from backupkit.repository import history, operation, sizes, store
from backupkit.restore.journal import Journal
from backupkit.restore.recovery import recover
from backupkit.restore.undo import goes_back_to, lost_without
from backupkit.retention.prune import accept
from backupkit.scheduling.run import StepResult, regular_steps, run_steps
from backupkit.web import fixes
from backupkit.web.recovery_sheet import sheet
from backupkit.web.site import Answer, Content, Goto, Handler, Page, Visit, job_of, require_owner

_OPERATIONS, _LINES = 300, 200  # operations, and lines of the log, that a page shows
_BACKUPS = 100  # backups that a page shows, unless the visitor asks for all
_REMOTE_BACKUPS = 20  # backups on remotes that the overview shows
_SORTS: Mapping[str, Callable[[Backup], Any]] = {
    "made": lambda one: one.metadata.created_at.timestamp() if one.metadata else 0.0,
    "name": lambda one: one.name,
    "size": lambda one: one.size_bytes,
    "adds": lambda one: one.unique_bytes,
    "state": lambda one: one.state,
    "kind": lambda one: one.kind or "",
}


def show_overview(visit: Visit) -> Answer:
    """Show the status, its reasons with a fix for each, the calendar and the next runs."""
    settings, found = visit.settings, report(visit.settings)
    reasons = [(reason, fixes.fix_of(settings, reason.fix)) for reason in found.status.reasons]
    return Page(
        "overview.html",
        {
            "status": found.status,
            "reasons": reasons if found.status.level != "fine" else [],
            "overview": found.overview,
            "runs": found.runs,
            "is_scheduled": found.is_scheduled,
            "has_backups": bool(found.backups),
            "elsewhere": [] if found.backups else _remote_backups(settings),
            "undo": goes_back_to(settings),
        },
    )


def _remote_backups(settings: Settings) -> list[tuple[str, RemoteBackup]]:
    """Return the backups the remotes held when last asked, newest first; for a machine that has no backup yet."""
    found = [(remote, one) for remote in settings.remotes for one in listing_cache.recall(settings.dir, remote).backups]
    return sorted(found, key=lambda one: one[1].created_at, reverse=True)[:_REMOTE_BACKUPS]


# Backups


def show_backups(visit: Visit) -> Answer:
    """List all backups, or those that match the words and the filter, sorted."""
    words, wanted = visit.query.get("find", ""), visit.query.get("filter", "all")
    order = visit.query.get("sort", "made")
    chosen = next((one for one in FILTERS if one.name == wanted), FILTERS[0])
    every = sizes.with_unique_bytes(visit.settings, store.all_backups(visit.settings))
    found = [one for one in every if chosen.lets(one) and has_words(one, words.lower().split())]
    is_ascending = visit.query.get("up") == "1"
    found.sort(key=_SORTS.get(order, _SORTS["made"]), reverse=not is_ascending)
    return Page(
        "backups.html",
        {
            "remark": render.remark,
            "backups": found if visit.query.get("all") else found[:_BACKUPS],
            "found": len(found),
            "total": len(every),
            "relations": _relations(visit.settings, found),
            "more": dict(visit.query) | {"all": "1"},
            "find": words,
            "chosen": chosen.name,
            "filters": [one.name for one in FILTERS],
            "sort": order,
            "is_ascending": is_ascending,
        },
    )


def _relations(settings: Settings, backups: list[Backup]) -> dict[tuple[str, ...], SchemaVerdict]:
    """Return the schema verdict for each revision among the backups; classify each revision only once."""
    revisions = {one.metadata.revisions for one in backups if one.metadata}
    return {one: schema.classify(settings, one) for one in revisions}


def show_backup(visit: Visit) -> Answer:
    """Show one backup in full."""
    settings, backup = visit.settings, _backup(visit)
    verdict = schema.classify(settings, backup.metadata.revisions) if backup.metadata else None
    return Page(
        "backup.html",
        {
            "backup": backup,
            "details": list(render.details(settings, backup)),
            "verdict": verdict,
            "has_remotes": bool(settings.remotes),
            "copies": listing_cache.holders(settings, backup) if backup.state == "damaged" else [],
            "before": (before := _previous_backup(settings, backup)),
            "since": list(_differences_since(before.metadata, backup.metadata)) if before else [],
        },
    )


def _previous_backup(settings: Settings, backup: Backup) -> Backup | None:
    """Return the newest older backup with readable metadata, or None; None also if `backup` itself has none."""
    older = (one for one in store.all_backups(settings) if one.metadata and one.made_at < backup.made_at)
    return next(older, None) if backup.metadata else None


def _differences_since(before: Metadata | None, now: Metadata | None) -> Iterator[tuple[str, str, str]]:
    """Yield each count that differs: what it counts, its value before, its value now; for all databases and trees."""
    assert before and now
    for name in ("", *now.others):
        earlier, later = before.at(name), now.at(name)
        if earlier and later:
            yield from _part_differences(f" in {name}" if name else "", earlier, later)


def _part_differences(where: str, before: Metadata, now: Metadata) -> Iterator[tuple[str, str, str]]:
    if before.database and now.database:
        earlier, later = before.database.rows, now.database.rows
        for table in sorted({*earlier, *later}):
            if earlier.get(table) != later.get(table):
                yield f"rows of {table}{where}", _counted(earlier, table), _counted(later, table)
    if before.uploads and now.uploads and before.uploads.tree != now.uploads.tree:
        yield f"uploads{where}", _files(before.uploads), _files(now.uploads)
    if before.revisions != now.revisions:
        yield f"schema revision{where}", before.schema_name, now.schema_name


def _counted(rows: Mapping[str, int], table: str) -> str:
    return f"{rows[table]:,}" if table in rows else "-"


def _files(facts: UploadsFacts) -> str:
    return f"{facts.files:,} files, {format_bytes(facts.bytes)}"


def _backup(visit: Visit) -> Backup:
    return store.find(visit.settings, visit.place["name"])


# Actions


def back_up(visit: Visit) -> Answer:
    """Start a backup."""
    return visit.start(tasks.back_up(visit.settings, visit.form.get("name", "").strip(), visit.form.get("note", "")))


def verify(visit: Visit) -> Answer:
    return visit.start(tasks.verify(visit.settings, _backup(visit)))


def test_restore(visit: Visit) -> Answer:
    return visit.start(tasks.verify(visit.settings, _backup(visit), test_restore=True))


def pin(visit: Visit) -> Answer:
    with operation.acting_as(visit.actor):
        tasks.pin(visit.settings, _backup(visit)).act(silence)
    return Goto(f"backup/{visit.place['name']}")


def delete(visit: Visit) -> Answer:
    """Delete the backup if its name was typed; else ask again."""
    backup = _backup(visit)
    if visit.form.get("typed", "").strip() != backup.name:
        return _delete_page(visit, backup, was_typed=True)
    return visit.start(tasks.delete(visit.settings, backup))


def ask_delete(visit: Visit) -> Answer:
    """Show which remotes hold a copy, and ask for the name."""
    backup = _backup(visit)
    return _delete_page(visit, backup, was_typed=False)


def _delete_page(visit: Visit, backup: Backup, was_typed: bool) -> Page:
    copies, lost = listing_cache.holders(visit.settings, backup), lost_without(visit.settings, backup.name)
    return Page("delete.html", {"backup": backup, "copies": copies, "lost": lost, "was_typed": was_typed})


def push(visit: Visit) -> Answer:
    return visit.start(tasks.push(visit.settings, visit.place.get("name") or None))


def pull(visit: Visit) -> Answer:
    settings, name, remote = visit.settings, visit.place["name"], visit.place["remote"]
    act, told = partial(pull_backup, settings, name, remote), partial(render.pulled, settings.reach)
    return visit.start(Task(f"Fetch {name} from {remote}", act, told))


def accept_unusual(visit: Visit) -> Answer:
    """Mark what is unusual about the backup as intended."""
    with operation.acting_as(visit.actor):
        accept(visit.settings, visit.place["name"])
    return Goto(f"backup/{visit.place['name']}")


def finish_restore(visit: Visit) -> Answer:
    def told(found: Journal | None) -> list[str]:
        return [f"The restore of {found.source} is finished." if found else "Nothing was left to finish."]

    return visit.start(Task("Finish the interrupted restore", partial(recover, visit.settings), told))


def run(visit: Visit) -> Answer:
    """Start the regular steps, as `run` does from cron."""
    settings = visit.settings

    def act(emit: EventListener) -> list[StepResult]:
        order = BackupRequest(kind="scheduled", git=git_facts(os.environ))
        done = list(run_steps(regular_steps(settings, order), emit))
        if error := next((one.error for one in done if one.error), None):
            raise error
        return done

    return visit.start(Task("Back up, verify, prune, push", act, render.run))


def ask_remotes(visit: Visit) -> Answer:
    look, told = partial(look_at_remotes, visit.settings), partial(render.copies, visit.settings)
    return visit.start(Task("Ask every remote", look, told))


def prepare(visit: Visit) -> Answer:
    """Prepare the remote for its first copy; leave a prepared one as it is."""
    remote = visit.place["remote"]
    act = partial(prepare_remote, visit.settings, remote)
    return visit.start(Task(f"Prepare {remote}", act, lambda _: (f"{remote} can be used.",)))


def test_notification(visit: Visit) -> Answer:
    settings = visit.settings

    def act(_emit: EventListener) -> tuple[Any, ...]:
        to = messages.everyone(settings)
        if not to:
            raise BackupError("No notification address is set.", hint="Set BACKUP_NOTIFY_URLS or BACKUP_PING_URL.")
        return messages.send(settings, messages.test_message(settings), to)

    return visit.start(Task("Send a test notification", act, render.deliveries))


# Jobs

# The page that shows the plan, by the kind of its job.
_PLANS = {"plan": "restore/plan", "beside": "restore/beside", "rescue": "rescue/plan"}


def show_job(visit: Visit) -> Answer:
    """Show the job's progress, or how it ended and what can be done next; go to the plan if that is its result."""
    job = job_of(visit)
    if job is None:
        raise NoSuchBackup("This work is not known any more.", hint="The history has what came of it.")
    progress = job.document()  # read once: the job may end while the page is rendered
    if progress["state"] == "done" and job.kind in _PLANS:
        return Goto(f"{_PLANS[job.kind]}/{job.number}")
    return Page("job.html", {"job": job, "progress": progress, "undo": _undo_after(visit, job.kind)})


def _undo_after(visit: Visit, kind: str) -> str | None:
    return goes_back_to(visit.settings) if kind == "restore" else None


def cancel(visit: Visit) -> Answer:
    if job := job_of(visit):
        job.run.cancel()
    return Goto(f"job/{visit.place['number']}")


# History and settings


def show_history(visit: Visit) -> Answer:
    """Show the operations, newest first, and the end of the log."""
    found = history.read(visit.settings.dir)
    is_failures = visit.query.get("failures") == "1"
    operations = [one for one in found.operations if one.has_failed or not is_failures]
    return Page(
        "history.html",
        {
            "operations": operations[:_OPERATIONS],
            "total": len(operations),
            "is_failures": is_failures,
            "error": found.error,
            "log": list(_log(visit.settings)),
        },
    )


def _log(settings: Settings) -> Iterator[str]:
    if settings.log_file is None:
        yield from log.last_lines()
    else:
        yield from log.tail(settings.log_file, _LINES)


def show_settings(visit: Visit) -> Answer:
    """Show the settings in force, and where each comes from."""
    settings = visit.settings
    values = [(name, render.value(getattr(settings, name)), origin) for name, origin in origins(settings).items()]
    return Page("settings.html", {"values": values, "remotes": settings.remotes})


def recovery_sheet(visit: Visit) -> Answer:
    """Send the recovery sheet to save and print."""
    require_owner(visit)
    settings = visit.settings
    lines = sheet(recovery_kit(settings, copies_of(settings)), host(os.environ), git_facts(os.environ))
    text = "".join(f"{line}\n" for line in lines)
    return Content(f"recovery-{settings.app_id}.md", "text/plain; charset=utf-8", text.encode())


def sign_out(visit: Visit) -> Answer:
    """Sign this browser out, or all of them if the owner asks for that."""
    if visit.form.get("every") and visit.is_owner:
        visit.site.access.end_all()
    else:
        visit.site.access.end(visit.session)
    return Goto("")


GET: Mapping[str, Handler] = {
    "": show_overview,
    "backups": show_backups,
    "backup/{name}": show_backup,
    "backup/{name}/delete": ask_delete,
    "job/{number}": show_job,
    "history": show_history,
    "settings": show_settings,
    "recovery-sheet": recovery_sheet,
}
POST: Mapping[str, Handler] = {
    "do/back-up": back_up,
    "do/verify/{name}": verify,
    "do/test-restore/{name}": test_restore,
    "do/pin/{name}": pin,
    "do/delete/{name}": delete,
    "do/push/{name}": push,
    "do/push/": push,
    "do/pull/{remote}/{name}": pull,
    "do/accept/{name}": accept_unusual,
    "do/recover": finish_restore,
    "do/run": run,
    "do/remotes": ask_remotes,
    "do/prepare/{remote}": prepare,
    "do/notify-test": test_notification,
    "job/{number}/cancel": cancel,
}
