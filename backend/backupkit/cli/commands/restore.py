"""Commands that restore data from backups and SQL text, undo that, salvage a database, and migrate the schema."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backupkit.cli.console import at_terminal, listening, require_person, require_yes, say, say_notice
from backupkit.cli.errors import end_with_warnings
from backupkit.cli.options import Database, DryRun, ExpectLoss, Json, Name, Quiet, Tree, Yes, listed, not_empty
from backupkit.cli.output import out
from backupkit.cli.program import CommandGroup
from backupkit.cli.session import finish_interrupted, load, of_database, of_tree, open_for, open_to_read
from backupkit.model.errors import Refused
from backupkit.model.names import printable
from backupkit.monitoring.notify import run_report

if TYPE_CHECKING:
    from backupkit.config.settings import Settings
    from backupkit.model.backup import Backup
    from backupkit.restore.lay_out import Layout
    from backupkit.restore.restore import Restored, RestorePlan

commands = CommandGroup("Restore")

Force = Annotated[
    bool, typer.Option("--force", "-f", help="Restore without a question, even where it would be refused.")
]
Stop = Annotated[
    bool, typer.Option("--stop", help="Stop the service first, and start it again afterwards (backup.sh does it).")
]


@commands.command(
    "restore", examples=["restore latest --dry-run", "restore latest --at 2d --to /srv/look", "restore pre_migration"]
)
def restore(
    name: Annotated[
        str | None, typer.Argument(help="The backup's name, or 'latest'. May be left out with --at.")
    ] = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="NAME",
            callback=not_empty,
            help="Restore only this: database, uploads, or the name of another one.",
        ),
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Run this code's migrations on the copy before it goes live.")
    ] = False,
    expect_loss: ExpectLoss = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="DIR",
            callback=not_empty,
            help="Lay it out in this new or empty folder; nothing live is touched.",
        ),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(
            "--remote", metavar="REMOTE", callback=not_empty, help="With --to: from this remote, without a pull."
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            callback=not_empty,
            help='The data of that time: "14:32", "yesterday 18:00", "10 minutes ago", a date.',
        ),
    ] = None,
    stop: Stop = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Restore a backup: database and uploads, all or nothing."""
    from backupkit.restore.restore import plan_backup, plan_restore

    name = _named(name, at)
    if to is not None:
        _refuse_with_to(migrate or bool(expect_loss), stop)
        if remote is not None:
            return _lay_out_from(remote, name, Path(to), only, at, dry_run)
        return _lay_out(name, Path(to), only, at, dry_run)
    if remote is not None:
        raise Refused(
            "--remote goes with --to.", hint=f"To restore it here: `pull {name} --remote {printable(remote)}`"
        )
    if expect_loss and not migrate:
        raise Refused("--expect-loss goes with --migrate.", hint="Add --migrate, or leave out --expect-loss.")
    settings = open_for("restore", dry_run)
    _explain_stop(settings, stop)
    with _at_moment(settings, at) as (backup, notes):
        later, loss = _is_unasked(yes or force, dry_run), expect_loss or ()
        with listening() as emit:
            if backup:
                plan = plan_backup(
                    settings, backup, only, force, migrate, emit, loss, notes, verify_while_staging=later
                )
            else:
                plan = plan_restore(settings, name, only, force, migrate, emit, loss, notes, later)
        _carry_out(settings, plan, yes or force, dry_run)


@commands.command(
    "extract",
    examples=["extract latest invoices/2024/", "extract latest a.pdf --to -", "extract latest '*.pdf' --to /srv/look"],
)
def extract(
    name: Name,
    pattern: Annotated[
        list[str],
        typer.Argument(metavar="PATTERN", callback=not_empty, help="The uploads: paths, or patterns as in .gitignore."),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="DIR",
            callback=not_empty,
            help="A new or empty folder; -: stdout, for one file. Left out: in place.",
        ),
    ] = None,
    tree: Tree = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Put some uploads of a backup back where they were, or take them out into a folder."""
    if to == "-":
        return _write_out(name, pattern, tree, json)
    if to is not None:
        return _take_out(name, pattern, Path(to), tree, dry_run)
    from backupkit.cli import render
    from backupkit.restore.extract import plan_extract

    settings = of_tree(open_for("extract", dry_run), tree)
    with listening() as emit:
        plan = plan_extract(settings, name, pattern, force, emit, _is_unasked(yes or force, dry_run))
    _carry_out(settings, plan, yes or force, dry_run, render.put_back)


@commands.command("clone", examples=["clone /srv/staging", "clone /srv/staging --mask mask.sql"])
def clone(
    directory: Annotated[str, typer.Argument(metavar="DIR", callback=not_empty, help="A new or empty folder.")],
    name: Annotated[str, typer.Option("--from", metavar="NAME", help="The backup.")] = "latest",
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            callback=not_empty,
            help="SQL that masks personal data; a path below the app's folder.",
        ),
    ] = None,
    no_uploads: Annotated[bool, typer.Option("--no-uploads", help="Leave the uploads out.")] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Lay a backup out for a colleague or for staging, and mask personal data in it."""
    from backupkit.restore.clone import plan_clone

    settings = open_to_read()
    target = Path(directory)
    _clear_draft(target, dry_run)
    plan = plan_clone(settings, name, target, Path(mask) if mask else None, not no_uploads)
    _carry_out_layout(settings, plan, dry_run)


@commands.command("undo", examples=["undo --dry-run", "undo"])
def undo(
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    stop: Stop = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Undo the last restore or migration."""
    from backupkit.restore.undo import plan_undo

    settings = open_for("undo", dry_run)
    _explain_stop(settings, stop)
    with listening() as emit:
        plan = plan_undo(settings, force, emit, _is_unasked(yes or force, dry_run))
    _carry_out(settings, plan, yes or force, dry_run)


@commands.command(
    "rescue",
    examples=[
        "rescue latest companies --missing --dry-run",
        "rescue latest companies --key 17 --with-children",
        "rescue pre_migration companies --where \"name LIKE 'A%'\"",
    ],
)
def rescue(
    name: Name,
    table: Annotated[str, typer.Argument(callback=not_empty, help="The table. `rows` shows what is in it.")],
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="EXPR", callback=not_empty, help="Rows of the backup that meet this condition."
        ),
    ] = None,
    missing: Annotated[bool, typer.Option("--missing", help="All rows that are no longer live.")] = False,
    key: Annotated[
        str | None, typer.Option("--key", callback=not_empty, help="The rows of these primary keys: 17,18.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace live rows of the same key that have other values.")
    ] = False,
    with_children: Annotated[
        bool, typer.Option("--with-children", help="Also missing rows of other tables that refer to these.")
    ] = False,
    database: Database = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Bring rows of a backup back into the live database, and the rows that they refer to."""
    from backupkit.cli import row_text
    from backupkit.restore.rescue import plan_rescue, rescue_rows
    from backupkit.sqlite.row_rescue import Choice

    settings = of_database(open_for("rescue", dry_run), database)
    choice = Choice(where or "", missing, listed(key or ""))
    with listening() as emit:
        plan = plan_rescue(settings, name, table, choice, overwrite, with_children, force, emit)
    if dry_run:
        return out.result(row_text.rescue_plan(plan), row_text.rescue_plan_document(plan))
    if plan.found.writes:
        _require_agreement_to(row_text.rescue_plan(plan), yes or force)
    with listening() as emit:
        done = rescue_rows(settings, plan, emit)
    out.result(row_text.rescued(done), row_text.rescued_document(done))
    end_with_warnings(done.warnings)


@commands.command("restore-dump", examples=["restore-dump today.sql.gz --dry-run", "restore-dump today.sql.gz"])
def restore_dump(
    file: Annotated[
        str, typer.Argument(callback=not_empty, help="A bare name is a file of the backups folder. - is stdin.")
    ],
    database: Database = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    stop: Stop = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make the database from SQL text and put it in place, as a restore does."""
    from backupkit.backup.sql_dump import dump_path, plan_dump
    from backupkit.backup.sql_dump import restore_dump as load

    settings = of_database(open_for("restore-dump", dry_run), database)
    if file == "-":
        require_person(yes or force or dry_run)  # the dump on stdin would be read as the answer
    _explain_stop(settings, stop)
    source = sys.stdin.buffer if file == "-" else dump_path(settings, file)
    if dry_run:
        with listening() as emit:
            plan = plan_dump(settings, source, force, emit)
        return _show_plan(plan)
    with listening() as emit:
        done = load(settings, source, lambda plan: _require_agreement(plan, yes or force), force, emit)
    _show_restored(settings, done)


@commands.command("salvage", examples=["salvage --dry-run", "salvage", "salvage pre_restore_20241201_120000"])
def salvage(
    file: Annotated[
        str | None,
        typer.Argument(
            callback=not_empty, help="A broken database file, or a backup that keeps one. Left out: the live database."
        ),
    ] = None,
    database: Database = None,
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Bring deleted rows back too, as far as they are still there.")
    ] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Read what is left of a broken database into a new backup. The broken one is only read."""
    from backupkit.backup.salvage import plan_salvage
    from backupkit.backup.salvage import salvage as read
    from backupkit.cli import json_, render

    settings = of_database(open_for("salvage", dry_run), database)
    with listening() as emit:
        done = (plan_salvage if dry_run else read)(settings, file, deleted, emit)
    out.result(render.salvaged(settings.deployment, done), json_.salvaged(done))
    end_with_warnings(done.warnings)


@commands.command("migrate", examples=["migrate"])
def migrate(
    revision: Annotated[
        str, typer.Argument(callback=not_empty, help="The revision to upgrade to. Left out: head.")
    ] = "head",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Rehearse it on a copy, say what it did there, and change nothing.")
    ] = False,
    if_any: Annotated[
        bool,
        typer.Option("--if-any", help="Succeed and do nothing if the app has neither Alembic nor a migrate command."),
    ] = False,
    expect_loss: ExpectLoss = None,
    database: Database = None,
    stop: Stop = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Upgrade the schema: backup, rehearsal on a copy, upgrade. If it fails, go back to the backup."""
    from backupkit.cli import json_, render
    from backupkit.migrations.migrate import migrate as upgrade
    from backupkit.migrations.migrate import rehearse

    settings = of_database(open_for("migrate", dry_run), database)
    _explain_stop(settings, stop)
    done = None
    if settings.alembic or settings.migrate_command or not if_any:
        with listening() as emit:
            act = rehearse if dry_run else upgrade
            done = act(settings, revision, emit, expect_loss=expect_loss or ())
    if not done:
        run_report.nothing_to_do()
    there = f"The database is at {revision} already: nothing to migrate."
    without = "This app has neither Alembic nor BACKUP_MIGRATE_COMMAND: nothing to migrate."
    nothing = there if settings.alembic or settings.migrate_command else without
    out.result(render.migrated(settings.deployment, done) if done else [nothing], json_.migrated(done))
    end_with_warnings(done.warnings if done else ())


@commands.command("recover", examples=["recover"])
def recover(quiet: Quiet = False, json: Json = False) -> None:
    """Finish an interrupted restore, or clear it away."""
    from backupkit.cli import json_

    settings = load()
    run_report.begin(settings, "recover", watched=at_terminal())
    found = finish_interrupted(settings)
    if not found:
        run_report.nothing_to_do()
    line = f"The restore of {printable(found.source)} is finished." if found else "There was nothing to recover."
    out.result([line], json_.recovered(found))


def _named(name: str | None, at: str | None) -> str:
    """Return the name of the backup to restore; with a time it is `latest`, and may be left out."""
    if name is None and at is None:
        raise Refused("Which backup? Neither a name nor --at was given.", hint="`restore latest`, or `list`.")
    if name not in (None, "latest") and at is not None:
        raise Refused(
            "--at chooses the backup by its time; no name but `latest` goes with it.", hint="`restore --at TIME`"
        )
    return "latest" if name is None else name


@contextlib.contextmanager
def _at_moment(settings: Settings, at: str | None) -> Iterator[tuple[Backup | None, tuple[str, ...]]]:
    """Yield the backup of that time, or its point of rewind built as one, and notes to show; None without a time."""
    if at is None:
        yield None, ()
        return
    from backupkit.model.clock import utc_now
    from backupkit.repository import store
    from backupkit.rewind import moments

    chosen, notes = moments.choose_by_words(settings, at, utc_now())
    if chosen.moment is None:
        yield store.find(settings, chosen.backup), notes
        return
    with contextlib.ExitStack() as building:
        with listening() as emit:
            backup = building.enter_context(moments.built(settings, chosen.moment, emit))
        yield backup, notes


def _refuse_with_to(migrate: bool, stop: bool) -> None:
    if option := "--migrate" if migrate else "--stop" if stop else "":
        raise Refused(
            f"{option} does not go with --to: that lays the backup out as it is, beside the running app.",
            hint=f"Leave out {option}.",
        )


def _lay_out(name: str, to: Path, only: str | None, at: str | None, dry_run: bool) -> None:
    from backupkit.restore.lay_out import plan_layout

    settings = open_to_read()
    _clear_draft(to, dry_run)
    with _at_moment(settings, at) as (backup, notes):
        plan = plan_layout(settings, name, to, only, backup, notes)
        _carry_out_layout(settings, plan, dry_run)


def _clear_draft(to: Path, dry_run: bool) -> None:
    """Remove the draft of a killed run before the plan, which refuses a target that exists; nothing in a dry run."""
    from backupkit.restore.lay_out import clear_draft

    if not dry_run:
        clear_draft(to)


def _lay_out_from(remote: str, name: str, to: Path, only: str | None, at: str | None, dry_run: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.model import times
    from backupkit.model.clock import utc_now
    from backupkit.remotes.pull import lay_out_from, plan_lay_out_from

    settings = open_to_read()
    until, said = times.moment(at, utc_now(), settings.zone) if at else (None, "")
    if said:
        say_notice(said)
    with listening() as emit:
        if dry_run:
            found = plan_lay_out_from(settings, name, remote, to, emit, until=until)
            return out.result(render.layout_from(found, remote, to), json_.layout_from(found, to))
        done = lay_out_from(settings, name, remote, to, only, emit, until=until)
    out.result(render.laid_out(done), json_.laid_out(done), of_work=True)
    end_with_warnings(done.warnings)


def _take_out(name: str, patterns: list[str], to: Path, tree: str | None, dry_run: bool) -> None:
    from backupkit.restore.lay_out import plan_taking_out

    settings = of_tree(open_to_read(), tree)
    _clear_draft(to, dry_run)
    _carry_out_layout(settings, plan_taking_out(settings, name, to, patterns), dry_run)


def _write_out(name: str, patterns: list[str], tree: str | None, json: bool) -> None:
    from backupkit.verify.browse import write_out

    if json:
        raise Refused("With - the file itself goes to stdout.", hint="Leave out --json, or name a folder.")
    settings = of_tree(open_to_read(), tree)
    with listening() as emit, out.stream() as stdout:
        write_out(settings, name, patterns, stdout, emit)


def _carry_out_layout(settings: Settings, plan: Layout, dry_run: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.restore.lay_out import lay_out

    if dry_run:
        return out.result(render.layout(plan), json_.layout(plan))
    with listening() as emit:
        done = lay_out(settings, plan, emit)
    out.result(render.laid_out(done), json_.laid_out(done), of_work=True)
    end_with_warnings(done.warnings)


def _is_unasked(answered: bool, dry_run: bool) -> bool:
    """Return whether no person will judge the plan, so that bytes may be verified later, while they are staged."""
    return answered and not dry_run


def _carry_out(
    settings: Settings,
    plan: RestorePlan,
    answered: bool,
    dry_run: bool,
    lines_of: Callable[..., Iterable[str]] | None = None,
) -> None:
    """Show the plan, and carry it out if the answer is yes; `lines_of`: in place of `render.restored`."""
    from backupkit.restore.restore import restore_backup

    if dry_run:
        return _show_plan(plan)
    _require_agreement(plan, answered)
    with listening() as emit:
        done = restore_backup(settings, plan, emit)
    _show_restored(settings, done, lines_of)


def _show_plan(plan: RestorePlan) -> None:
    from backupkit.cli import json_, render

    out.result(render.plan(plan), json_.plan(plan))


def _explain_stop(settings: Settings, stop: bool) -> None:
    if stop and not settings.deployment.in_container:
        say_notice("There is no service to stop here: --stop has no effect without Docker.")


def _require_agreement(plan: RestorePlan, answered: bool) -> None:
    """Show the plan; raise `Declined` unless the answer is yes, `Refused` if nobody can be asked."""
    from backupkit.cli import render

    _require_agreement_to(render.plan(plan), answered)


def _require_agreement_to(lines: Iterable[str], answered: bool) -> None:
    require_person(answered)
    for line in lines:
        say_notice(line) if answered else say(line)
    require_yes("Go ahead?", answered)


def _show_restored(settings: Settings, done: Restored, lines_of: Callable[..., Iterable[str]] | None = None) -> None:
    from backupkit.cli import json_, render

    out.result((lines_of or render.restored)(settings.deployment, done), json_.restored(done))
    end_with_warnings(done.warnings)
