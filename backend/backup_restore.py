#!/usr/bin/env python3
"""Back up and restore the app in this folder: its SQLite database and its uploads.

The commands: each reads its options, calls one verb, shows the result. Results go to stdout, everything else to
stderr. Exit codes are listed in `backupkit/model/errors.py`.
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while everything is imported there is nothing to tidy up

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backupkit.cli.console import ask, ask_secret, at_terminal, be_quiet, listening, say, say_notice
from backupkit.cli.errors import (
    boundary,
    end_at_once_on_signals,
    end_on_signals,
    end_with_warnings,
    open_missing_streams,
    say_error,
)
from backupkit.cli.help import Command, Group, print_version
from backupkit.model.errors import Damaged, Declined, ExitCode, Refused
from backupkit.model.events import Warned, collecting
from backupkit.model.names import shown
from backupkit.monitoring.notify import run_report

if TYPE_CHECKING:
    from backupkit.config.editor import Changed
    from backupkit.config.settings import Settings
    from backupkit.model.backup import Backup, BackupRequest
    from backupkit.restore.journal import Journal
    from backupkit.restore.restore import Restored, RestorePlan
    from backupkit.verify.verify import Verified


class Commands(Group):
    """The one error boundary: inside the program's own handling of interrupts, which would hide the exit code."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        with boundary(json="--json" in ctx.args):
            be_quiet(False)  # until the command's own option says otherwise
            end_on_signals()  # not before: until here there is nothing to tidy up
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    name="backup-restore",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

config_group = typer.Typer(cls=Group)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Wide = Annotated[bool, typer.Option("--wide", help="Show all columns, also where the terminal is too narrow.")]
# The callback does it all: a command with this option need not look at its value.
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=be_quiet, help="Show no progress and no notices, only warnings.")
]
Name = Annotated[str, typer.Argument(help="The backup's name, or 'latest'.")]
Force = Annotated[
    bool, typer.Option("--force", "-f", help="Restore without a question, even where it would be refused.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer the question with yes.")]
OldForce = Annotated[bool, typer.Option("--force", "-f", hidden=True, help="The old name of --yes.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")]
Note = Annotated[str, typer.Option("--note", help="A note to find it by.")]
Pin = Annotated[bool, typer.Option("--pin", help="Pin it: it is not deleted until it is unpinned.")]
NoUploads = Annotated[bool, typer.Option("--no-uploads", help="Back up the database only.")]
RemoteName = Annotated[str | None, typer.Option("--remote", help="The name of a remote in the settings.")]
ExpectLoss = Annotated[
    list[str] | None, typer.Option("--expect-loss", help="A table of which the migrations may lose data; repeatable.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Accept setuid files, and links that leave the uploads. Your own backups only.")
]
Stop = Annotated[
    bool, typer.Option("--stop", help="Stop the service first, and start it again afterwards (backup.sh does it).")
]


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Back up and restore the app: its SQLite database and its uploads."""


@app.command()
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

    order = BackupRequest(name, note=note, pin=pin, uploads=not no_uploads, git=git_facts(os.environ))
    _back_up("backup", order, if_needed, json)


@app.command("auto-backup")
def auto_backup(
    note: Note = "", pin: Pin = False, no_uploads: NoUploads = False, quiet: Quiet = False, json: Json = False
) -> None:
    """Make a backup named after branch, commit and time of git."""
    from backupkit.cli.host import git_facts, why_no_git
    from backupkit.model.backup import BackupRequest

    git = git_facts(os.environ)
    if git is None:
        say_notice(why_no_git(os.environ))
    _back_up(
        "auto-backup", BackupRequest(kind="auto", note=note, pin=pin, uploads=not no_uploads, git=git), False, json
    )


@app.command()
def run(
    if_needed: Annotated[bool, typer.Option("--if-needed", help="Make no second backup on one day.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Back up, verify, prune, push. Put this in cron."""
    from backupkit.cli import json_, render
    from backupkit.cli.host import git_facts
    from backupkit.model.backup import BackupRequest
    from backupkit.scheduling.run import regular_steps, run_steps, worst

    settings = _settings(work="run")
    steps = regular_steps(settings, BackupRequest(kind="scheduled", git=git_facts(os.environ)), if_needed)
    results = []
    with listening() as emit:
        for result in run_steps(steps, emit):
            results.append(result)
            if result.error:
                say_error(result.error)
    if all(result.state == "nothing" for result in results):
        run_report.nothing_to_do()
    _put_result(render.run(results), json_.run(results), json)
    if code := worst(results):
        raise SystemExit(code)


@app.command("list")
def list_backups(remote: RemoteName = None, wide: Wide = False, json: Json = False) -> None:
    """List the backups, newest first: here, or on a remote."""
    from backupkit.cli import json_, render, tables
    from backupkit.repository import sizes, store

    if remote is not None:
        return _list_remote(remote, wide, json)
    settings = _settings_for_reading()
    found = sizes.with_unique_bytes(settings, store.all_backups(settings))
    if json:
        json_.put([json_.backup(one) for one in found])
    else:
        _put(render.listing(settings, found, tables.terminal(wide)))


@app.command()
def show(name: Name, json: Json = False) -> None:
    """Show one backup in full."""
    from backupkit.cli import json_, render
    from backupkit.repository import sizes, store

    settings = _settings_for_reading()
    with listening() as emit:
        found = sizes.unique_bytes_of(settings, store.find(settings, name, emit))
    if json:
        json_.put(json_.backup(found))
    else:
        _put(render.details(settings, found))


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="The backup's name, or 'latest', or the path of a database file.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Verify all backups.")] = False,
    newest: Annotated[
        bool, typer.Option("--latest", help="Take the newest, whatever its state, as without a name.")
    ] = False,
    at_random: Annotated[
        bool, typer.Option("--random", help="Take one whose last test restore is long ago, or that never had one.")
    ] = False,
    test_restore: Annotated[
        bool, typer.Option("--test-restore", help="Also restore it into a scratch folder, and compare.")
    ] = False,
    accept: Annotated[bool, typer.Option("--accept", help="Accept what is unusual in it, if it is good.")] = False,
    remote: RemoteName = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compare every byte of a backup, or perform a test restore."""
    from backupkit.verify.verify import verify_backups

    if (name is not None) + every + newest + at_random > 1:
        raise Refused("Which backup is meant?", hint="Give a name, or one of --all, --latest and --random.")
    if remote is not None:
        if every or at_random or accept or (name is not None and not test_restore):
            raise Refused("With --remote goes --test-restore, and NAME with that.", hint="Leave out the rest.")
        return _verify_remote(remote, name, test_restore, json)
    settings = _settings_for_reading()
    if name is not None and os.path.isfile(name) and not (settings.dir / name).is_dir():
        return _verify_file(settings, Path(name), test_restore or accept, json)
    backups = _to_verify(settings, name, every, at_random)
    with listening() as emit:
        done = verify_backups(settings, backups, test_restore, emit)
    _show_verified(settings, done, every, accept, json)


@app.command()
def restore(
    name: Name,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    only: Annotated[
        Literal["database", "uploads"] | None,
        typer.Option("--only", metavar="database|uploads", help="Restore one half only."),
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Run this code's migrations on the copy before it goes live.")
    ] = False,
    expect_loss: ExpectLoss = None,
    stop: Stop = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Restore a backup: database and uploads, all or nothing."""
    from backupkit.restore.restore import plan_restore

    settings = _settings_for_reading() if dry_run else _settings(work="restore")
    _explain_stop(settings, stop)
    with listening() as emit:
        plan = plan_restore(settings, name, only, force, migrate, emit, expect_loss or ())
    _carry_out(settings, plan, yes or force, dry_run, json)


@app.command()
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

    settings = _settings_for_reading() if dry_run else _settings(work="undo")
    _explain_stop(settings, stop)
    with listening() as emit:
        plan = plan_undo(settings, force, emit)
    _carry_out(settings, plan, yes or force, dry_run, json)


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="The revision to upgrade to. Left out: head.")] = "head",
    expect_loss: ExpectLoss = None,
    stop: Stop = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Upgrade the schema: backup, rehearsal on a copy, upgrade, and back to the backup if it fails."""
    from backupkit.cli import json_, render
    from backupkit.migrations.migrate import migrate as upgrade

    settings = _settings(work="migrate")
    _explain_stop(settings, stop)
    with listening() as emit:
        done = upgrade(settings, revision, emit, expect_loss=expect_loss or ())
    if not done:
        run_report.nothing_to_do()
    lines = render.migrated(settings.reach, done) if done else [f"There is nothing to migrate to reach {revision}."]
    _put_result(lines, json_.migrated(done), json)


@app.command()
def recover(quiet: Quiet = False, json: Json = False) -> None:
    """Finish an interrupted restore, or clear it away."""
    from backupkit.cli import json_

    settings = _load()
    run_report.begin(settings, "recover", watched=at_terminal())
    found = _recover(settings)
    if not found:
        run_report.nothing_to_do()
    line = f"The restore of {shown(found.source)} is finished." if found else "There was nothing to recover."
    _put_result([line], json_.recovered(found), json)


@app.command()
def dump(
    file: Annotated[str | None, typer.Argument(help="A bare name goes to the backups folder. - is stdout.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the database as SQL text. The suffixes .gz and .zst compress it."""
    from backupkit.backup.sql_dump import dump as write
    from backupkit.backup.sql_dump import dump_path, dump_to
    from backupkit.cli import json_, render

    settings = _settings(work="dump")
    warnings: list[str] = []
    if file == "-":
        if json:
            raise Refused("With - the SQL text itself goes to stdout.", hint="Leave out --json, or name a file.")
        with listening() as emit:
            dump_to(settings, sys.stdout.buffer, collecting(emit, warnings))
    else:
        target = dump_path(settings, file)
        with listening() as emit:
            facts = write(settings, target, collecting(emit, warnings))
        document = json_.dumped(target, facts.tables, facts.rows)
        _put_result(render.dumped(facts.tables, facts.rows, target), document, json)
    if warnings:
        raise SystemExit(ExitCode.WARNINGS)


@app.command("restore-dump")
def restore_dump(
    file: Annotated[str, typer.Argument(help="A bare name is a file of the backups folder. - is stdin.")],
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

    settings = _settings_for_reading() if dry_run else _settings(work="restore-dump")
    if file == "-":
        _require_person(yes or force or dry_run)  # the question would be answered by the dump
    _explain_stop(settings, stop)
    source = sys.stdin.buffer if file == "-" else dump_path(settings, file)
    if dry_run:
        with listening() as emit:
            plan = plan_dump(settings, source, force, emit)
        return _show_plan(plan, json)
    with listening() as emit:
        done = load(settings, source, lambda plan: _require_agreement(plan, yes or force), force, emit)
    _show_restored(settings, done, json)


@app.command("export")
def export_one(
    name: Name,
    file: Annotated[str, typer.Argument(help="A bare name goes to the backups folder. - is stdout.")],
    recipient: Annotated[
        list[str] | None,
        typer.Option("--recipient", "-r", help="Encrypt to this public key, age1…; may be given several times."),
    ] = None,
    recipients_file: Annotated[
        list[Path] | None, typer.Option("--recipients-file", help="Encrypt to the public keys in this file.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write one backup as one file: .tar.zst, .tar.gz or .tar; with .age at the end it is encrypted."""
    from backupkit.archive import export
    from backupkit.cli import json_, render

    settings = _settings()
    if file == "-" and json:
        raise Refused("With - the archive itself goes to stdout.", hint="Leave out --json, or name a file.")
    told = os.environ.get("BACKUP_HOST_FILE", "") if file == "-" else file
    closing = export.closing_for(
        settings, told, recipient or (), recipients_file or (), lambda: ask_secret("Passphrase for the export", True)
    )
    warnings: list[str] = []
    with listening() as emit:
        if file == "-":
            form = told or (".tar.zst.age" if closing else ".tar.zst")
            export.export_to(settings, name, sys.stdout.buffer, form, closing, collecting(emit, warnings))
        else:
            target = export.export_path(settings, file)
            done = export.export_backup(settings, name, target, closing, collecting(emit, warnings))
    if file != "-":
        json_.put(json_.exported(done)) if json else _put(render.exported(done))
    if warnings:
        raise SystemExit(ExitCode.WARNINGS)


@app.command("import")
def import_one(
    file: Annotated[str, typer.Argument(help="A bare name is a file of the backups folder. - is stdin.")],
    name: Annotated[
        str | None, typer.Option("--name", help="The name of the backup here. Left out: the archive's.")
    ] = None,
    identity: Annotated[
        list[Path] | None,
        typer.Option(
            "--identity",
            "-i",
            help="The file with the secret key, as age-keygen writes it; may be given several times.",
        ),
    ] = None,
    trust: Trust = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Read a backup from such a file, or from one that tar made."""
    from backupkit.archive import export
    from backupkit.cli import json_, render

    settings = _settings()
    keys = export.keys_for(settings, identity or (), lambda: ask_secret("Passphrase of the archive"))
    source = sys.stdin.buffer if file == "-" else export.export_path(settings, file)
    with listening() as emit:
        done = export.import_backup(settings, source, keys, name, trust, emit)
    json_.put(json_.imported(done)) if json else _put(render.imported(settings.reach, done))
    if done.warnings:
        raise SystemExit(ExitCode.WARNINGS)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="The backup's name.")],
    yes: Yes = False,
    force: OldForce = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Delete one backup. A pinned one is refused."""
    from backupkit.cli import json_, render
    from backupkit.retention.delete import deletable, delete_backup

    settings = _settings()
    found = deletable(settings, name)
    _require_yes(f"Delete {found.path} for ever?", yes or force, "--yes deletes it.")
    with listening() as emit:
        found = delete_backup(settings, name, emit)
    json_.put(json_.backup(found)) if json else _put(render.deleted(found))


@app.command()
def prune(
    dry_run: DryRun = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Delete more than BACKUP_PRUNE_LIMIT at once.")] = False,
    remote: RemoteName = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Delete old backups by the retention rules, and show why."""
    if remote is not None:
        return _prune_remote(remote, dry_run, force, json)
    from backupkit.cli import json_, render
    from backupkit.retention.prune import plan_prune, prune_backups

    settings = _settings_for_reading() if dry_run else _settings(work="prune")
    plan = plan_prune(settings)
    if not json:
        _put(render.prune_plan(settings, plan))
    if dry_run:
        return json_.put(json_.prune_plan(plan)) if json else None
    with listening() as emit:
        done = prune_backups(settings, plan, force, emit)
    json_.put(json_.pruned(plan, done)) if json else _put(render.pruned(done))
    if done.warnings:
        raise SystemExit(ExitCode.WARNINGS)


@app.command()
def push(
    name: Annotated[
        str | None, typer.Argument(help="The backup's name, or 'latest'. Left out: all that are missing there.")
    ] = None,
    remote: RemoteName = None,
    yes: Yes = False,
    force: OldForce = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Copy backups to the remotes. What is there already stays as it is."""
    from backupkit.cli import json_, render
    from backupkit.remotes.push import push_backups, refuse_failed

    settings = _settings(work="push")
    if not yes and not force:
        _require_agreement_to_git(settings, remote)
    with listening() as emit:
        done = push_backups(settings, name, remote, emit)
    _put_result(render.pushed(done), [json_.pushed(one) for one in done], json)
    refuse_failed(done)


@app.command()
def pull(name: Name, remote: RemoteName = None, trust: Trust = False, quiet: Quiet = False, json: Json = False) -> None:
    """Fetch a backup from a remote, and compare every byte."""
    from backupkit.cli import json_, render
    from backupkit.remotes.pull import pull_backup, the_remote

    settings = _settings(work="pull")
    with listening() as emit:
        done = pull_backup(settings, name, the_remote(settings, remote), emit, trust=trust)
    _put_result(render.pulled(settings.reach, done), json_.backup(done.backup), json)


@app.command()
def remotes(
    init: Annotated[
        str | None, typer.Option("--init", metavar="REMOTE", help="Make this remote ready for the first push.")
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Ask every remote: can it be used, what is missing there, and is it 3-2-1?"""
    from backupkit.cli import json_, render
    from backupkit.remotes.registry import look_at_remotes, prepare_remote, refuse_unreachable, refuse_without

    settings = _settings_for_reading()
    with listening() as emit:
        if init is not None:
            prepare_remote(settings, init, emit)
        refuse_without(settings)
        found = look_at_remotes(settings, emit)
    json_.put(json_.copies(found)) if json else _put(render.copies(settings, found))
    if init is not None:
        return
    refuse_unreachable(found)
    if any(one.behind for one in found.remotes):
        raise SystemExit(ExitCode.WARNINGS)


@app.command()
def pin(name: Name, json: Json = False) -> None:
    """Pin a backup: it is not deleted until it is unpinned."""
    _set_pin(name, True, json)


@app.command()
def unpin(name: Name, json: Json = False) -> None:
    """Unpin a backup."""
    _set_pin(name, False, json)


@app.command()
def history(
    failures: Annotated[bool, typer.Option("--failures", help="Show only what failed or was interrupted.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", help="Show what began since then: 90m, 36h, 7d or 2w ago, or a date.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most this many, the newest.")] = 30,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """Show what was done, newest first: when, by whom, with what result, how long it took."""
    from backupkit.cli import json_, render, tables
    from backupkit.model import documents
    from backupkit.model.clock import utc_now
    from backupkit.model.durations import moment
    from backupkit.repository import history as kept

    settings = _settings_for_reading()
    earliest = moment(since, utc_now(), settings.zone) if since else None
    told = kept.read(settings.dir)
    if told.trouble:
        say(f"Warning: {told.trouble}")
    found = [one for one in told.operations if one.has_failed or not failures]
    found = [one for one in found if earliest is None or one.started_at >= earliest]
    if json:
        json_.put([documents.operation(one) for one in found[:limit]])
    else:
        _put(render.history(settings, found[:limit], len(found[limit:]), tables.terminal(wide)))


@app.command()
def status(
    prometheus: Annotated[
        str | None,
        typer.Option("--prometheus", metavar="FILE", help="Write metrics for Prometheus into this file. - is stdout."),
    ] = None,
    json: Json = False,
) -> None:
    """Say whether the data is safe. Exit code 0: fine, 1: warning, 2: critical."""
    from backupkit.cli import json_, render
    from backupkit.monitoring import prometheus as metrics
    from backupkit.monitoring.status import LEVELS
    from backupkit.monitoring.status import status as assess

    if json and prometheus == "-":
        raise Refused("With - the metrics themselves go to stdout.", hint="Leave out --json, or name a file.")
    settings = _settings_for_reading()
    found = assess(settings)
    content = metrics.text(found, settings.app_id) if prometheus else ""
    if prometheus and prometheus != "-":
        metrics.write(Path(prometheus).expanduser().absolute(), content)
    if prometheus == "-":
        print(content, end="")
    elif json:
        json_.put(json_.status(found))
    else:
        _put(render.status(settings, found))
    raise SystemExit(LEVELS.index(found.level))


@app.command()
def report(
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="A bare name goes to the backups folder. - is stdout."),
    ] = None,
    json: Json = False,
) -> None:
    """Write one HTML page about the backups, to mail or to serve."""
    from backupkit.cli import json_
    from backupkit.monitoring.report_facts import DEFAULT_FILE, report_path, write_report
    from backupkit.monitoring.report_facts import report as gather
    from backupkit.web.report.page import page

    if json and output is not None:
        raise Refused("With --json what the page says goes to stdout.", hint="Leave out --output.")
    settings = _settings_for_reading()
    if json:
        return json_.put(json_.report(gather(settings)))
    if output is None:
        output = DEFAULT_FILE if sys.stdout.isatty() else "-"  # nobody reads HTML at a terminal
    path = report_path(settings, output) if output != "-" else None
    content = page(settings, gather(settings))
    if path is None:
        return print(content, end="")
    write_report(path, content)
    _put([f"The report is {path}."])


@app.command()
def schedule(
    show: Annotated[bool, typer.Option("--list", help="Show the next runs and end.")] = False,
    json: Json = False,
) -> None:
    """Run the scheduler: backups, test restores and pruning at their times, until it is stopped."""
    if show:
        return _list_runs(json)
    if json:
        raise Refused("The scheduler has no result to show as JSON.", hint="Add --list: it shows the next runs.")
    from backupkit.cli.daemon import Daemon

    settings = _load()
    if code := Daemon(settings, lambda: _load_again(settings)).serve():
        raise SystemExit(code)


@app.command("recovery-kit")
def recovery_kit(
    file: Annotated[
        str | None, typer.Argument(help="A new file. A bare name goes to the backups folder. Left out, or -: stdout.")
    ] = None,
) -> None:
    """Write a sheet to print: how to start again on a new machine. It holds no secret."""
    from backupkit.cli.host import git_facts, host
    from backupkit.model.names import printable
    from backupkit.monitoring.recovery_kit import copies_of, sheet_path, write_sheet
    from backupkit.monitoring.recovery_kit import recovery_kit as gather
    from backupkit.web.recovery_sheet import sheet

    settings = _settings_for_reading()
    path = sheet_path(settings, file) if file and file != "-" else None
    lines = sheet(gather(settings, copies_of(settings)), host(os.environ), git_facts(os.environ))
    if path is None:
        print("\n".join(map(printable, lines)))  # the document, as it is in a file
        return
    write_sheet(path, "".join(f"{line}\n" for line in lines))
    _put([f"The sheet is {path}. Keep a copy of it away from this machine."])


@config_group.callback(invoke_without_command=True)
def config(ctx: typer.Context, json: Json = False) -> None:
    """Show the settings in force, and where each comes from."""
    from backupkit.cli import json_, render, tables
    from backupkit.config.settings import origins

    if ctx.invoked_subcommand:
        return
    settings = _load()
    values = {name: (getattr(settings, name), origin) for name, origin in origins(settings).items()}
    if json:
        return json_.put(json_.config(values), versioned=False)
    rows = ((name, render.value(value), origin) for name, (value, origin) in values.items())
    _put(tables.table(("SETTING", "VALUE", "FROM"), rows))


@config_group.command("init")
def config_init(
    stdout: Annotated[bool, typer.Option("--stdout", help="Print it and write no file.")] = False,
    json: Json = False,
) -> None:
    """Write a backup.toml with every setting commented out."""
    from backupkit.cli import json_
    from backupkit.config.editor import begin_file
    from backupkit.config.schema import template

    if stdout and json:
        raise Refused("With --stdout the file itself goes to stdout.", hint="Leave out --json.")
    if stdout:
        return print(template(_app_folder()), end="")
    path = begin_file(_app_folder(), _contained())
    json_.put(json_.settings_file(path)) if json else _put([f"{path} is there, with every setting commented out."])


@config_group.command("set")
def config_set(
    key: Annotated[str, typer.Argument(help="The setting: timezone or BACKUP_TIMEZONE.")],
    value: Annotated[str, typer.Argument(help="The value. Several have spaces between them.")],
    json: Json = False,
) -> None:
    """Set a value in backup.toml. The rest of the file stays as it is."""
    from backupkit.config.editor import set_value

    _show_changed(set_value(_app_folder(), _contained(), key, value), json)


@config_group.command("unset")
def config_unset(
    key: Annotated[str, typer.Argument(help="The setting: timezone or BACKUP_TIMEZONE.")],
    json: Json = False,
) -> None:
    """Remove a value from backup.toml, so that the default applies."""
    from backupkit.config.editor import unset_value

    _show_changed(unset_value(_app_folder(), _contained(), key), json)


@config_group.command("schema")
def config_schema() -> None:
    """Print a JSON schema of backup.toml, for editors."""
    from backupkit.cli import json_
    from backupkit.config.schema import json_schema

    json_.put(json_schema(), versioned=False)


app.add_typer(config_group, name="config")


@app.command()
def doctor(
    at_start: Annotated[
        bool, typer.Option("--at-start", help="Look at SQLite and the file system only, as a container's start does.")
    ] = False,
    json: Json = False,
) -> None:
    """Diagnose this set-up, and name the command for each problem."""
    from backupkit.cli import json_, render
    from backupkit.monitoring import doctor as diagnosis

    settings = _load()
    with listening() as emit:
        found = diagnosis.at_start(settings) if at_start else diagnosis.examine(settings, emit)
    if json:
        json_.put([json_.finding(one) for one in found])
    else:
        _put(render.findings(found))
    if any(finding.level == "wrong" for finding in found):
        raise SystemExit(ExitCode.FAILED)


@app.command("notify-test")
def notify_test(json: Json = False) -> None:
    """Send a test message to every notification address."""
    from backupkit.cli import json_, render
    from backupkit.monitoring.notify import messages

    settings = _load()
    to = messages.everyone(settings)
    if not to:
        raise Refused("Nobody is to be told of anything.", hint="Set BACKUP_NOTIFY_URLS or BACKUP_PING_URL.")
    deliveries = messages.send(settings, messages.test_message(settings), to)
    json_.put([json_.delivery(one) for one in deliveries]) if json else _put(render.deliveries(deliveries))
    if any(one.trouble for one in deliveries):
        raise SystemExit(ExitCode.FAILED)


@app.command()
def ui(
    web: Annotated[bool, typer.Option("--web", help="Serve the interface to a browser.")] = False,
    host: Annotated[
        str | None, typer.Option("--host", help="The address to serve it at. Left out: 127.0.0.1, this machine alone.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="The port to serve it at. Left out: 8765; 0: any that is free."),
    ] = None,
) -> None:
    """Open the terminal interface: see that the data is safe, make backups, restore."""
    from backupkit.config.extras import from_extra

    if web:
        return _serve_ui(host or "127.0.0.1", port)
    if host is not None or port is not None:
        raise Refused("--host and --port say where a browser finds it.", hint="Add --web.")
    with from_extra("ui", "The terminal interface"):
        from backupkit.ui.window import BackupApp
    _require_terminal()
    BackupApp(_settings_for_reading()).run()


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the throw-away data, and say where it is.")] = False,
) -> None:
    """Play a whole story on throw-away data: app, backup, disaster, restore, proof."""
    from backupkit.demo.story import tell_story

    tell_story(Path(__file__).resolve(), keep)


for _one in (*app.registered_commands, *config_group.registered_commands):
    _one.cls = Command


def main() -> None:
    """The program."""
    open_missing_streams()
    try:
        app(prog_name=os.environ.get("BACKUP_HOST_COMMAND") or None)
    finally:
        end_at_once_on_signals()  # from here on there is nothing to tidy up


def _load() -> Settings:
    from backupkit.cli.rights import work_as_owner
    from backupkit.config.settings import load_settings
    from backupkit.monitoring import log

    work_as_owner(_app_dir())
    settings = load_settings(_app_dir())
    log.hide(settings.secrets)
    if settings.log_file:
        log.open_log(settings.log_file, settings.log_format)
    return settings


def _load_again(before: Settings) -> Settings:
    """The settings as they are now; the log stays open where it is the same."""
    from backupkit.cli.rights import work_as_owner
    from backupkit.config.settings import load_settings
    from backupkit.monitoring import log

    work_as_owner(_app_dir())
    settings = load_settings(_app_dir())
    log.hide((*before.secrets, *settings.secrets))
    if settings.log_file and settings.log_file != before.log_file:
        log.open_log(settings.log_file, settings.log_format)
    return settings


def _list_runs(json: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.scheduling.agenda import next_runs

    settings = _settings_for_reading()
    found, is_at_work = next_runs(settings)
    if not is_at_work:
        say_notice("No scheduler is at work for this backups folder: these are the runs if one were.")
    json_.put([json_.due(one) for one in found]) if json else _put(render.due(settings, found))


def _app_dir() -> Path:
    """The folder of this script, where it was copied into an app; the current one where it was installed."""
    here = Path(__file__).resolve().parent
    return Path.cwd() if here.name in ("site-packages", "dist-packages") else here


def _app_folder() -> Path:
    """Where `backup.toml` is, for commands that mend settings which cannot be loaded."""
    from backupkit.cli.rights import edit_as_owner
    from backupkit.config.settings import app_folder

    edit_as_owner(_app_dir())
    return app_folder(_app_dir())


def _contained() -> bool:
    from backupkit.config.deployment import is_contained

    return is_contained(os.environ)


def _show_changed(done: Changed, json: bool) -> None:
    from backupkit.cli import json_, render

    json_.put(json_.setting(done)) if json else _put(render.changed(done))
    if done.overridden_by:
        say(f"{done.overridden_by} in the environment overrides this.")


def _settings(work: str = "") -> Settings:
    """The settings, after an interrupted restore was finished; `work` names a command whose end is to be reported."""
    settings = _load()
    if work:
        run_report.begin(settings, work, watched=at_terminal() and work != "run")
    _recover(settings)
    return settings


def _recover(settings: Settings) -> Journal | None:
    """The restore that was finished; what it warned of makes the command end with 3, whatever comes after."""
    from backupkit.restore.recovery import recover as finish

    heard: list[str] = []
    with listening() as emit:
        found = finish(settings, collecting(emit, heard))
    if heard:
        end_with_warnings()
    return found


def _settings_for_reading() -> Settings:
    """The settings of a command that only reads: it says that a restore is unfinished, and leaves it so."""
    from backupkit.restore.recovery import unfinished

    settings = _load()
    if what := unfinished(settings):
        with listening() as emit:
            emit(Warned(f"{what} To finish it: {settings.reach.tool('recover')}"))
    return settings


def _back_up(command: str, order: BackupRequest, if_needed: bool, json: bool) -> None:
    from dataclasses import replace

    from backupkit.backup.create import backup_of_today, create_backup, create_backup_if_needed
    from backupkit.cli import json_, render

    settings = _settings(work=command)
    with listening() as emit:
        created = (create_backup_if_needed if if_needed else create_backup)(settings, order, emit)
    if created is None:
        run_report.nothing_to_do()
        there = backup_of_today(settings, whole=order.uploads)
        say_notice(f"There is a backup of today already: {there.name if there else 'deleted meanwhile'}.")
        return json_.put(json_.backup(there) if there else None) if json else None
    created = replace(created, warnings=_push_after(settings, created.warnings))
    _put_result(render.made(created), json_.created(created), json)
    if created.warnings:
        raise SystemExit(ExitCode.WARNINGS)


def _carry_out(settings: Settings, plan: RestorePlan, answered: bool, dry_run: bool, json: bool) -> None:
    from backupkit.restore.restore import restore_backup

    if dry_run:
        return _show_plan(plan, json)
    _require_agreement(plan, answered)
    with listening() as emit:
        done = restore_backup(settings, plan, emit)
    _show_restored(settings, done, json)


def _show_plan(plan: RestorePlan, json: bool) -> None:
    from backupkit.cli import json_, render

    json_.put(json_.plan(plan)) if json else _put(render.plan(plan))


def _set_pin(name: str, pinned: bool, json: bool) -> None:
    from backupkit.cli import json_
    from backupkit.retention.delete import set_pin

    settings = _settings()
    with listening() as emit:
        found = set_pin(settings, name, pinned, emit)
    if json:
        json_.put(json_.backup(found))
    else:
        _put([f"{found.name} is {'pinned' if pinned else 'not pinned'}."])


def _list_remote(remote: str, wide: bool, json: bool) -> None:
    from backupkit.cli import json_, render, tables
    from backupkit.remotes.base import remote_document
    from backupkit.remotes.pull import list_remote
    from backupkit.repository import store

    settings = _settings_for_reading()
    with listening() as emit:
        found = list_remote(settings, remote, emit)
    if json:
        return json_.put(list(map(remote_document, found)))
    _put(render.remote_listing(settings, remote, found, store.taken_names(settings), tables.terminal(wide)))


def _verify_remote(remote: str, name: str | None, test_restore: bool, json: bool) -> None:
    from backupkit.cli import json_
    from backupkit.remotes.pull import prove_remote, verify_remote
    from backupkit.repository import store

    settings = _settings_for_reading()
    with listening() as emit:
        if test_restore:
            done = prove_remote(settings, name or store.LATEST, remote, emit)
        else:
            verify_remote(settings, remote, emit)
    if test_restore:
        return _show_verified(settings, done, False, False, json)
    json_.put(json_.remote_verified(remote)) if json else _put([f"{remote}: sound, as far as it can check."])


def _prune_remote(remote: str, dry_run: bool, force: bool, json: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.remotes.prune import plan_remote_prune, prune_remote

    settings = _settings_for_reading()
    with listening() as emit:
        plan = plan_remote_prune(settings, remote, emit)
        if not json:
            _put(render.prune_plan(settings, plan))
        if dry_run:
            return json_.put(json_.prune_plan(plan)) if json else None
        done = prune_remote(settings, remote, plan, force, emit)
    json_.put(json_.pruned(plan, done)) if json else _put(render.removed_there(remote, done))
    if done.warnings:
        raise SystemExit(ExitCode.WARNINGS)


def _push_after(settings: Settings, warnings: tuple[str, ...]) -> tuple[str, ...]:
    """The warnings so far, and those of carrying it away, where the settings want that."""
    from backupkit.remotes.push import push_after

    if not settings.push_after_backup or not settings.remotes:
        return warnings
    with listening() as emit:
        return (*warnings, *push_after(settings, emit)[1])


def _to_verify(settings: Settings, name: str | None, every: bool, at_random: bool) -> list[Backup]:
    from backupkit.repository import store
    from backupkit.verify.verify import backup_at, pick

    if every:
        return store.all_backups(settings)
    if at_random:
        return [pick(settings)]
    if name is not None and os.sep in name and store.is_backup(Path(name).absolute()):
        return [backup_at(settings, Path(name))]
    if name is None:
        return [store.newest(settings)]
    with listening() as emit:
        return [store.find(settings, name, emit)]


def _verify_file(settings: Settings, path: Path, too_much: bool, json: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.verify.verify import verify_file

    if too_much:
        raise Refused(f"{path} is a database file, not a backup.", hint="It can be checked: leave out that option.")
    with listening() as emit:
        found = verify_file(settings, path.absolute(), emit)
    json_.put(json_.verified_file(found)) if json else _put(render.verified_file(found))
    if found.flaws:
        raise Damaged(f"{path} is damaged: {found.flaws[0].text}.", hint="Try a backup: `list`.")


def _show_verified(settings: Settings, done: list[Verified], every: bool, accept: bool, json: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.retention.prune import accept as accept_backup
    from backupkit.verify.verify import refuse_bad

    if json:
        found = [json_.verified(one) for one in done]
        json_.put(found if every else found[0])
    else:
        _put(render.verified(settings, done))
    refuse_bad(settings, done)
    for one in done if accept else ():
        accept_backup(settings, one.backup.name)
        say_notice(f"{one.backup.name} is accepted: what is unusual in it is meant to be so.")
    if any(one.warnings for one in done):
        raise SystemExit(ExitCode.WARNINGS)


def _require_person(answered: bool, hint: str = "--yes goes ahead, --dry-run shows.") -> None:
    """Refuse where the question is not answered yet and cannot be asked."""
    if not answered and not at_terminal():
        raise Refused("There is no terminal to ask at; nothing was changed.", hint)


def _require_yes(question: str, answered: bool, hint: str = "--yes goes ahead, --dry-run shows.") -> None:
    """Go on only if the answer is yes: `Refused` where nobody can be asked, `Declined` for a no."""
    _require_person(answered, hint)
    if not answered and not ask(question):
        raise Declined("Nothing was changed.")


def _serve_ui(host: str, port: int | None) -> None:
    from backupkit.config.extras import from_extra

    with from_extra("ui", "The interface in a browser"):
        from backupkit.ui import web
    settings = _settings_for_reading()
    title, outside = f"Backups of {settings.app_id}", os.environ.get("BACKUP_HOST_ADDRESS", "")
    web.serve(
        str(Path(__file__).resolve()), host, web.DEFAULT_PORT if port is None else port, outside, title, _say_address
    )


def _say_address(address: str) -> None:
    say("Open this address in a browser; it lets one in, once. Ctrl-C ends it.")
    print(address, flush=True)


def _require_terminal() -> None:
    """Refused where an interface could not be drawn."""
    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("The terminal interface needs a terminal.", hint="`status` and `list` do without.")


def _require_agreement_to_git(settings: Settings, remote: str | None) -> None:
    """Ask before data go to a branch of git, which many may be able to read."""
    tables = {name: table for name, table in settings.remotes.items() if remote in (None, name) and table.type == "git"}
    if tables and not at_terminal():
        raise Refused(
            "A push to git asks first, and there is no terminal to ask at; nothing was pushed.",
            hint="--yes goes ahead. `run` and BACKUP_PUSH_AFTER_BACKUP need no answer.",
        )
    if not all(ask(f"Push to {name}, {table.place}?") for name, table in tables.items()):
        raise Declined("Nothing was pushed.")


def _explain_stop(settings: Settings, stop: bool) -> None:
    if stop and not settings.reach.in_container:
        say_notice("There is no service to stop here: --stop has no effect without Docker.")


def _require_agreement(plan: RestorePlan, answered: bool) -> None:
    """Show the plan, and go on only if the answer is yes."""
    from backupkit.cli import render

    _require_person(answered)
    for line in render.plan(plan):
        say_notice(line) if answered else say(line)
    _require_yes("Go ahead?", answered)


def _show_restored(settings: Settings, done: Restored, json: bool) -> None:
    from backupkit.cli import json_, render

    _put_result(render.restored(settings.reach, done), json_.restored(done), json)
    if done.warnings:
        raise SystemExit(ExitCode.WARNINGS)


def _put_result(lines: Iterable[str], document: object, json: bool) -> None:
    """What the command came to, in words or as JSON; the words go into the report in either case."""
    from backupkit.cli import json_

    lines = list(lines)
    run_report.add_result(lines)
    json_.put(document) if json else _put(lines)


def _put(lines: Iterable[str]) -> None:
    """Print results, a line each. No control character in them reaches the terminal, but the colours of a table."""
    from backupkit.cli.tables import Drawn
    from backupkit.config.deployment import in_full
    from backupkit.model.names import printable

    for line in lines:
        print(line if isinstance(line, Drawn) else printable(in_full(line)))


if __name__ == "__main__":
    main()
