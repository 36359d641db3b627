"""The main pages and their actions: overview, backups, jobs, history, settings, recovery sheet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from msgspec import Struct

from backupkit.cli import render, tasks
from backupkit.cli.filters import FILTERS, has_words
from backupkit.cli.host import git_facts, host, scheduled_backup
from backupkit.cli.task import Task
from backupkit.config.settings import Settings, origins
from backupkit.fs.space import format_bytes
from backupkit.migrations import schema
from backupkit.model.backup import Backup, Metadata
from backupkit.model.errors import NoSuchBackup
from backupkit.model.events import EventListener, silence
from backupkit.monitoring import log
from backupkit.monitoring.notify import messages
from backupkit.monitoring.notify.sender import Delivery
from backupkit.monitoring.recovery_kit import recovery_kit
from backupkit.monitoring.report_facts import report
from backupkit.remotes import listing_cache
from backupkit.remotes.base import RemoteBackup
from backupkit.remotes.copies import Copies
from backupkit.remotes.pull import Pulled, pull_backup
from backupkit.remotes.registry import look_at_remotes, prepare_remote
from backupkit.repository import history, operation, sizes, store
from backupkit.restore.journal import Journal
from backupkit.restore.recovery import recover
from backupkit.restore.undo import lost_without, safety_copy_to_restore
from backupkit.retention.prune import accept
from backupkit.scheduling.run import StepResult, regular_steps, run_steps
from backupkit.web.report import sheet
from backupkit.web.site import (
    Answer,
    Content,
    Goto,
    Handler,
    Page,
    Planned,
    Visit,
    job_of,
    owner_only,
    require_typed,
    starting,
)

_OPERATIONS, _LINES = 300, 200  # operations, and lines of the log, that a page shows
_BACKUPS = 100  # backups that a page shows, unless the visitor asks for all
_NOTHING = ("-", "")  # stands for what one of two backups does not have
_REMOTE_BACKUPS = 20  # backups on remotes that the overview shows
_SORTS = {
    "made": "made_at",
    "name": "name",
    "size": "size_bytes",
    "adds": "unique_bytes",
    "state": "state",
    "kind": "kind",
}


def show_overview(visit: Visit) -> Answer:
    """Show the status, its reasons with a fix for each, the calendar and the next runs."""
    settings, found = visit.settings, report(visit.settings)
    reasons = found.status.reasons if found.status.level != "fine" else ()
    return Page(
        "overview.html",
        found=found,
        reasons=[(reason, fix_of(settings, reason.fix)) for reason in reasons],
        elsewhere=[] if found.backups else _remote_backups(settings),
        undo=safety_copy_to_restore(settings),
    )


def _remote_backups(settings: Settings) -> list[tuple[str, RemoteBackup]]:
    """Return the backups the remotes held when last asked, newest first; for a machine that has no backup yet."""
    found = [(remote, one) for remote in settings.remotes for one in listing_cache.recall(settings.dir, remote).backups]
    return sorted(found, key=lambda one: one[1].created_at, reverse=True)[:_REMOTE_BACKUPS]


class Fix(Struct, frozen=True):
    """A button: its caption, and the path it posts a form to, or links to if `is_link`."""

    caption: str
    path: str

    @property
    def is_link(self) -> bool:
        """Whether the path only shows a page."""
        return not self.path.startswith("do/")


# By the command: the caption and the path, in which {0} and {1} are its words in brackets. The first that fits counts.
_FIXES: Mapping[str, tuple[str, str]] = {
    r"backup": ("Back up now", "do/back-up"),
    r"run": ("Back up, verify and prune now", "do/run"),
    r"recover": ("Finish the restore", "do/recover"),
    r"verify": ("Verify the newest", "do/verify/latest"),
    r"verify(?: --latest)? --test-restore": ("Test restore now", "do/test-restore/latest"),
    r"verify (\S+)": ("Verify {0}", "do/verify/{0}"),
    r"verify (\S+) --test-restore": ("Test restore of {0}", "do/test-restore/{0}"),
    r"verify (\S+) --accept": ("Accept what is unusual", "do/accept/{0}"),
    r"history": ("Open the history", "history"),
    r"history --failures": ("See what failed", "history?failures=1"),
    r"list": ("Open the backups", "backups"),
    r"show (\S+)": ("Look at {0}", "backup/{0}"),
    r"remotes": ("Ask the remotes", "do/remotes"),
    r"push(?: --remote \S+)?": ("Push now", "do/push/"),
    r"pull (\S+) --remote (\S+)": ("Fetch {0} from {1}", "do/pull/{1}/{0}"),
    r"restore (\S+).*": ("Restore {0}", "restore?name={0}"),
}


def fix_of(settings: Settings, command: str) -> Fix | None:
    """Return the button for a command that `status` names, or None if the command can only be typed."""
    line = command.removeprefix(settings.deployment.tool("")).strip()
    for pattern, (caption, path) in _FIXES.items():
        if found := re.fullmatch(pattern, line):
            return Fix(caption.format(*found.groups()), path.format(*found.groups()))
    return None


def show_backups(visit: Visit) -> Answer:
    """List all backups, or those that match the words and the filter, sorted."""
    words, wanted = visit.query.get("find", ""), visit.query.get("filter", "all")
    order = visit.query.get("sort", "made")
    chosen = wanted if wanted in FILTERS else "all"
    every = sizes.with_unique_bytes(visit.settings, store.all_backups(visit.settings))
    found = [one for one in every if FILTERS[chosen](one) and has_words(one, words.lower().split())]
    is_ascending = visit.query.get("up") == "1"
    found.sort(key=attrgetter(_SORTS.get(order, "made_at")), reverse=not is_ascending)
    return Page(
        "backups.html",
        backups=found if visit.query.get("all") else found[:_BACKUPS],
        found=len(found),
        total=len(every),
        relations=schema.classify_each(visit.settings, found),
        more=dict(visit.query) | {"all": "1"},
        find=words,
        chosen=chosen,
        filters=list(FILTERS),
        sorts=list(_SORTS),
        sort=order,
        is_ascending=is_ascending,
    )


def show_backup(visit: Visit) -> Answer:
    """Show one backup in full."""
    settings, backup = visit.settings, _backup(visit)
    verdict = schema.classify(settings, backup.metadata.revisions) if backup.metadata else None
    return Page(
        "backup.html",
        backup=backup,
        verdict=verdict,
        copies=listing_cache.holders(settings, backup) if backup.state == "damaged" else [],
        before=(before := _previous_backup(settings, backup)),
        since=list(_differences(before.metadata, backup.metadata)) if before else [],
    )


def _previous_backup(settings: Settings, backup: Backup) -> Backup | None:
    """Return the newest older backup with readable metadata, or None; None also if `backup` itself has none."""
    older = (one for one in store.all_backups(settings) if one.metadata and one.made_at < backup.made_at)
    return next(older, None) if backup.metadata else None


def _differences(before: Metadata | None, now: Metadata | None) -> Iterator[tuple[str, str, str]]:
    """Yield what differs, its value before, its value now; for all databases and trees."""
    assert before and now
    for name in ("", *now.others):
        earlier, later, where = before.at(name), now.at(name), f" in {name}" if name else ""
        if earlier and later:
            then, today = dict(_compared(earlier)), dict(_compared(later))
            for what in dict.fromkeys((*then, *today)):
                if then.get(what) != today.get(what):
                    yield f"{what}{where}", then.get(what, _NOTHING)[0], today.get(what, _NOTHING)[0]


def _compared(part: Metadata) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield what is compared of a part: its name, its value in words, and what differs where the words do not."""
    if part.database:
        yield from ((f"rows of {table}", (f"{rows:,}", "")) for table, rows in sorted(part.database.rows.items()))
    if part.uploads:
        yield "uploads", (f"{part.uploads.files:,} files, {format_bytes(part.uploads.bytes)}", part.uploads.tree or "")
    yield "schema revision", (part.schema_name, "")


def _backup(visit: Visit) -> Backup:
    return store.find(visit.settings, visit.place["name"])


def pin(visit: Visit) -> Answer:
    with operation.acting_as(visit.actor):
        tasks.pin(visit.settings, _backup(visit)).act(silence)
    return Goto(f"backup/{visit.place['name']}")


def accept_unusual(visit: Visit) -> Answer:
    """Mark what is unusual about the backup as intended."""
    with operation.acting_as(visit.actor):
        accept(visit.settings, visit.place["name"])
    return Goto(f"backup/{visit.place['name']}")


def ask_delete(visit: Visit) -> Answer:
    """Show which remotes hold a copy, and ask for the name."""
    settings, backup = visit.settings, _backup(visit)
    copies, lost = listing_cache.holders(settings, backup), lost_without(settings, backup.name)
    return Page("delete.html", backup=backup, copies=copies, lost=lost)


# Tasks that an action starts; those of the command line are in `cli.tasks`.


def delete(visit: Visit) -> Task[Backup]:
    """Delete the backup; raise `Refused` unless its name was typed."""
    backup = _backup(visit)
    require_typed(visit, backup.name)
    return tasks.delete(visit.settings, backup)


def pull(visit: Visit) -> Task[Pulled]:
    settings, name, remote = visit.settings, visit.place["name"], visit.place["remote"]
    act, told = partial(pull_backup, settings, name, remote), partial(render.pulled, settings.deployment)
    return Task(f"Fetch {name} from {remote}", act, told)


def finish_restore(visit: Visit) -> Task[Journal | None]:
    def told(found: Journal | None) -> list[str]:
        return [f"The restore of {found.source} is finished." if found else "Nothing was left to finish."]

    return Task("Finish the interrupted restore", partial(recover, visit.settings), told)


def run(visit: Visit) -> Task[list[StepResult]]:
    """Do the regular steps, as `run` does from cron."""
    settings = visit.settings

    def act(emit: EventListener) -> list[StepResult]:
        done = list(run_steps(regular_steps(settings, scheduled_backup()), emit))
        if error := next((one.error for one in done if one.error), None):
            raise error
        return done

    return Task("Back up, verify, prune, push", act, render.run)


def ask_remotes(visit: Visit) -> Task[Copies]:
    look, told = partial(look_at_remotes, visit.settings), partial(render.copies, visit.settings)
    return Task("Ask every remote", look, told)


def prepare(visit: Visit) -> Task[Any]:
    """Prepare the remote for its first copy; leave a prepared one as it is."""
    remote = visit.place["remote"]
    act = partial(prepare_remote, visit.settings, remote)
    return Task(f"Prepare {remote}", act, lambda _: (f"{remote} can be used.",))


def test_notification(visit: Visit) -> Task[tuple[Delivery, ...]]:
    return Task("Send a test notification", lambda _: messages.send_test(visit.settings), render.deliveries)


def show_job(visit: Visit) -> Answer:
    """Show the job's progress, or how it ended and what can be done next; go to the plan if that is its result."""
    job = job_of(visit)
    if job is None:
        raise NoSuchBackup("This work is not known any more.", hint="The history has what came of it.")
    progress = job.document()  # read once: the job may end while the page is rendered
    if progress["state"] == "done" and job.ended and isinstance(job.ended.result, Planned):
        return Goto(f"{job.kind}/{job.number}")
    undo = safety_copy_to_restore(visit.settings) if job.kind == "restore" else None
    return Page("job.html", job=job, progress=progress, undo=undo)


def cancel(visit: Visit) -> Answer:
    if job := job_of(visit):
        job.run.cancel()
    return Goto(f"job/{visit.place['number']}")


def show_history(visit: Visit) -> Answer:
    """Show the operations, newest first, and the end of the log."""
    found, log_file = history.read(visit.settings.dir), visit.settings.log_file
    is_failures = visit.query.get("failures") == "1"
    operations = [one for one in found.operations if one.has_failed or not is_failures]
    return Page(
        "history.html",
        operations=operations[:_OPERATIONS],
        total=len(operations),
        is_failures=is_failures,
        error=found.error,
        log=log.tail(log_file, _LINES) if log_file else log.last_lines(),
    )


def show_settings(visit: Visit) -> Answer:
    """Show the settings in force, and where each comes from."""
    settings = visit.settings
    values = [(name, render.value(getattr(settings, name)), origin) for name, origin in origins(settings).items()]
    return Page("settings.html", values=values)


def recovery_sheet(visit: Visit) -> Answer:
    """Send the recovery sheet to save and print."""
    settings = visit.settings
    text = "".join(f"{line}\n" for line in sheet(recovery_kit(settings), host(), git_facts()))
    return Content(f"recovery-{settings.app_id}.md", "text/plain; charset=utf-8", text.encode())


def sign_out(visit: Visit) -> Answer:
    """Sign this browser out, or all of them if the owner asks for that."""
    visit.site.access.end(None if visit.form.get("every") and visit.is_owner else visit.session)
    return Goto("")


GET: Mapping[str, Handler] = {
    "": show_overview,
    "backups": show_backups,
    "backup/{name}": show_backup,
    "backup/{name}/delete": ask_delete,
    "job/{number}": show_job,
    "history": show_history,
    "settings": show_settings,
    "recovery-sheet": owner_only(recovery_sheet),
}
_TASKS: Mapping[str, Callable[[Visit], Task[Any]]] = {
    "do/back-up": lambda visit: tasks.back_up(visit.settings, visit.typed("name"), visit.typed("note")),
    "do/verify/{name}": lambda visit: tasks.verify(visit.settings, _backup(visit)),
    "do/test-restore/{name}": lambda visit: tasks.verify(visit.settings, _backup(visit), test_restore=True),
    "do/delete/{name}": delete,
    "do/push/{name}": lambda visit: tasks.push(visit.settings, visit.place["name"]),
    "do/push/": lambda visit: tasks.push(visit.settings),
    "do/pull/{remote}/{name}": pull,
    "do/recover": finish_restore,
    "do/run": run,
    "do/remotes": ask_remotes,
    "do/prepare/{remote}": prepare,
    "do/notify-test": test_notification,
}
POST: Mapping[str, Handler] = {
    **{path: starting(task_of) for path, task_of in _TASKS.items()},
    "do/pin/{name}": pin,
    "do/accept/{name}": accept_unusual,
    "job/{number}/cancel": cancel,
}
