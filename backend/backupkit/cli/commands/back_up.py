"""Commands that make backups (by hand, with git's facts, on a schedule, as SQL text), pin, prune and delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backupkit.cli.console import listening, require_yes, say_notice
from backupkit.cli.errors import end_with_warnings, say_error
from backupkit.cli.options import Database, DryRun, Json, Name, OldForce, Quiet, RemoteName, Wide, Yes, not_empty
from backupkit.cli.output import out
from backupkit.cli.program import CommandGroup
from backupkit.cli.session import listening_for_warnings, load, of_database, open_for, open_to_read, open_to_write
from backupkit.model.errors import Refused
from backupkit.monitoring.notify import run_report

if TYPE_CHECKING:
    from backupkit.model.backup import BackupRequest

commands = CommandGroup("Back up")

_BEYOND = "Delete more than BACKUP_PRUNE_LIMIT; on a remote also what was never here."

Note = Annotated[str, typer.Option("--note", help="A note to find it by.")]
Pin = Annotated[bool, typer.Option("--pin", help="Pin it: it is not deleted until it is unpinned.")]
NoUploads = Annotated[bool, typer.Option("--no-uploads", help="Back up the database only.")]


@commands.command("backup", examples=["backup", "backup pre_migration --note 'before the release' --pin"])
def backup(
    name: Annotated[
        str | None, typer.Argument(help="The name of the new backup. Left out: made from the time.")
    ] = None,
    note: Note = "",
    pin: Pin = False,
    if_needed: Annotated[bool, typer.Option("--if-needed", help="Do nothing if there is a backup of today.")] = False,
    no_uploads: NoUploads = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a backup of the running app."""
    from backupkit.cli.host import git_facts
    from backupkit.model.backup import BackupRequest

    request = BackupRequest(name, note=note, pin=pin, uploads=not no_uploads, git=git_facts())
    _back_up("backup", request, if_needed)


@commands.command("auto-backup", examples=["auto-backup"])
def auto_backup(
    note: Note = "", pin: Pin = False, no_uploads: NoUploads = False, quiet: Quiet = False, json: Json = False
) -> None:
    """Make a backup named after branch, commit and time of git."""
    from backupkit.cli.host import git_facts, why_no_git
    from backupkit.model.backup import BackupRequest

    git = git_facts()
    if git is None:
        say_notice(why_no_git())
    _back_up("auto-backup", BackupRequest(kind="auto", note=note, pin=pin, uploads=not no_uploads, git=git), False)


@commands.command("run", examples=["run", "run --if-needed"])
def run(
    if_needed: Annotated[bool, typer.Option("--if-needed", help="Make no second backup on one day.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Back up, verify, prune, push. Put this in cron."""
    from backupkit.cli import json_, render
    from backupkit.cli.host import scheduled_backup
    from backupkit.scheduling.run import regular_steps, run_steps, worst

    settings = open_to_write(work="run")
    steps = regular_steps(settings, scheduled_backup(), if_needed)
    results = []
    with listening() as emit:
        for result in run_steps(steps, emit):
            results.append(result)
            if result.error:
                say_error(result.error)
    if all(result.state == "nothing" for result in results):
        run_report.nothing_to_do()
    out.result(render.run(results), json_.run(results))
    if code := worst(results):
        raise SystemExit(code)


@commands.command("schedule", examples=["schedule --list"])
def schedule(
    show: Annotated[bool, typer.Option("--list", help="Show the next runs and end.")] = False,
    json: Json = False,
) -> None:
    """Run the scheduler: backups, test restores and pruning at their times, until it is stopped."""
    if show:
        return _list_runs()
    if json:
        raise Refused("The scheduler has no result to show as JSON.", hint="Add --list: it shows the next runs.")
    from backupkit.cli.daemon import Daemon

    settings = load()
    if code := Daemon(settings, lambda: load(settings)).serve():
        raise SystemExit(code)


@commands.command("dump", examples=["dump", "dump today.sql.gz"])
def dump(
    file: Annotated[
        str | None, typer.Argument(callback=not_empty, help="A bare name goes to the backups folder. - is stdout.")
    ] = None,
    database: Database = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the database as SQL text. The suffixes .gz and .zst compress it."""
    from backupkit.backup.sql_dump import dump as write
    from backupkit.backup.sql_dump import dump_path, dump_to
    from backupkit.cli import json_, render

    settings = of_database(open_to_write(work="dump"), database)
    if file == "-":
        if json:
            raise Refused("With - the SQL text itself goes to stdout.", hint="Leave out --json, or name a file.")
        with listening_for_warnings() as emit, out.stream() as stdout:
            dump_to(settings, stdout, emit)
        return
    target = dump_path(settings, file)
    with listening_for_warnings() as emit:
        facts = write(settings, target, emit)
    out.result(
        render.dumped(facts.tables, facts.rows, target), json_.dumped(target, facts.tables, facts.rows), of_work=True
    )


@commands.command("pin", examples=["pin pre_migration"])
def pin(name: Name, json: Json = False) -> None:
    """Pin a backup: it is not deleted until it is unpinned."""
    _set_pin(name, True)


@commands.command("unpin", examples=["unpin pre_migration"])
def unpin(name: Name, json: Json = False) -> None:
    """Unpin a backup."""
    _set_pin(name, False)


@commands.command("prune", examples=["prune --dry-run", "prune"])
def prune(
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", "-f", help=_BEYOND)] = False,
    remote: RemoteName = None,
    wide: Wide = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Delete old backups by the retention rules, and show why."""
    if remote is not None:
        return _prune_remote(remote, dry_run, force)
    from backupkit.cli import json_, render
    from backupkit.retention.prune import plan_prune, prune_backups

    settings = open_for("prune", dry_run)
    plan = plan_prune(settings)
    if dry_run:
        return out.result(render.prune_plan(settings, plan, out.screen()), json_.prune_plan(plan))
    out.lines(render.prune_plan(settings, plan, out.screen()))
    with listening() as emit:
        done = prune_backups(settings, plan, force, emit)
    out.result(render.pruned(done), json_.pruned(plan, done))
    end_with_warnings(done.warnings)


@commands.command("delete", examples=["delete pre_migration"])
def delete(
    name: Annotated[str, typer.Argument(help="The backup's name.")],
    yes: Yes = False,
    force: OldForce = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Delete one backup. A pinned one is refused."""
    from backupkit.cli import json_, render
    from backupkit.restore.undo import lost_without
    from backupkit.retention.delete import deletable, delete_backup

    settings = load()  # `delete_backup` finishes an interrupted restore, if there is room for that
    found = deletable(settings, name)
    question = f"{lost_without(settings, name)} Delete {found.path} for ever?".lstrip()
    require_yes(question, yes or force, "Add --yes to delete it.")
    with listening_for_warnings() as emit:
        found = delete_backup(settings, name, emit)
    out.result(render.deleted(found), json_.backup(found))


def _back_up(command: str, request: BackupRequest, if_needed: bool) -> None:
    from backupkit.backup.create import backup_of_today, create_backup, create_backup_if_needed
    from backupkit.cli import json_, render

    settings = open_to_write(work=command)
    with listening() as emit:
        created = (create_backup_if_needed if if_needed else create_backup)(settings, request, emit)
    if created is None:
        run_report.nothing_to_do()
        there = backup_of_today(settings, whole=request.uploads)
        say_notice(f"There is a backup of today already: {there.name if there else 'deleted meanwhile'}.")
        return out.document(json_.backup(there) if there else None)
    out.result(render.made(created), json_.created(created))
    end_with_warnings(created.warnings)


def _list_runs() -> None:
    from backupkit.cli import json_, render
    from backupkit.scheduling.agenda import next_runs

    settings = open_to_read()
    found, is_at_work = next_runs(settings)
    if not is_at_work:
        say_notice("No scheduler is running for this backups folder; these would be its runs.")
    out.result(render.due(settings, found), (json_.due(one) for one in found))


def _set_pin(name: str, pinned: bool) -> None:
    from backupkit.cli import json_
    from backupkit.retention.delete import set_pin

    settings = open_to_write()
    with listening() as emit:
        found = set_pin(settings, name, pinned, emit)
    out.result([f"{found.name} is {'pinned' if pinned else 'not pinned'}."], json_.backup(found))


def _prune_remote(remote: str, dry_run: bool, force: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.remotes.prune import plan_remote_prune, prune_remote

    settings = open_to_read()
    with listening() as emit:
        plan = plan_remote_prune(settings, remote, emit, takes_all=force)
        if dry_run:
            return out.result(render.prune_plan(settings, plan, out.screen()), json_.prune_plan(plan))
        out.lines(render.prune_plan(settings, plan, out.screen()))
        done = prune_remote(settings, remote, plan, force, emit)
    out.result(render.removed_there(remote, done), json_.pruned(plan, done))
    end_with_warnings(done.warnings)
