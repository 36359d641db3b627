"""Commands that show whether the data is safe: backups, their state, the history, the interfaces."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backupkit.cli.console import ask_secret, listening, say, say_notice
from backupkit.cli.errors import end_with_warnings
from backupkit.cli.options import Database, Json, Name, Quiet, RemoteName, Tree, Wide, listed, not_empty
from backupkit.cli.output import out
from backupkit.cli.program import CommandGroup
from backupkit.cli.session import listening_for_warnings, of_database, of_tree, open_to_read
from backupkit.model.errors import Damaged, NoSuchBackup, Refused

if TYPE_CHECKING:
    from backupkit.config.settings import Settings
    from backupkit.model.backup import Backup
    from backupkit.verify.verify import Verified
    from backupkit.web.access import Access, Role

commands = CommandGroup("Check")

_MOST_ROWS = 1_000_000_000  # all that a result can hold; SQLite takes no number without a limit


@commands.command("list", examples=["list", "list --remote offsite"])
def list_backups(remote: RemoteName = None, wide: Wide = False, json: Json = False) -> None:
    """List the backups, newest first: here, or on a remote."""
    from backupkit.cli import json_, render
    from backupkit.repository import sizes, store

    if remote is not None:
        return _list_remote(remote)
    settings = open_to_read()
    found = sizes.with_unique_bytes(settings, store.all_backups(settings))
    out.result(render.listing(settings, found, out.screen()), (json_.backup(one) for one in found))


@commands.command("show", examples=["show latest", 'show --at "14:32"'])
def show(
    name: Annotated[
        str | None, typer.Argument(help="The backup's name, or 'latest'. May be left out with --at.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", callback=not_empty, help="What `restore --at` would restore."),
    ] = None,
    json: Json = False,
) -> None:
    """Show one backup in full, or a point of rewind."""
    from backupkit.cli import json_, render
    from backupkit.repository import sizes, store

    if (name is None) == (at is None):
        raise Refused("Name a backup, or a time with --at.", hint="`list` shows the backups, `rewind` the times.")
    settings = open_to_read()
    if at is not None and (name := _shown_moment(settings, at)) is None:
        return
    assert name is not None
    with listening() as emit:
        found = sizes.unique_bytes_of(settings, store.find(settings, name, emit))
    out.result(render.details(settings, found), json_.backup(found))


def _shown_moment(settings: Settings, at: str) -> str | None:
    """Show the point of rewind of that time and return None, or return the name of the backup to show instead."""
    from backupkit.cli import rewind_text
    from backupkit.model.clock import utc_now
    from backupkit.rewind import moments

    chosen, notes = moments.choose_by_words(settings, at, utc_now())
    if chosen.moment is None:
        say_notice(chosen.sentence)
        return chosen.backup
    out.result(rewind_text.moment(settings, chosen.moment, notes), rewind_text.moment_document(settings, chosen.moment))
    return None


@commands.command("rewind", examples=["rewind"])
def rewind(wide: Wide = False, json: Json = False) -> None:
    """Show from when to when every minute can be restored, the gaps, and what the points cost."""
    from backupkit.cli import rewind_text
    from backupkit.rewind import moments

    settings = open_to_read()
    found = moments.timeline(settings)
    interval = max([settings.rewind_interval, *(one.point.header.interval for one in found.moments[-1:] if one.point)])
    out.result(
        rewind_text.timeline(settings, found, interval, out.screen()),
        rewind_text.timeline_document(settings, found, interval),
    )


@commands.command(
    "rows",
    examples=[
        "rows latest companies",
        "rows latest companies --where \"name LIKE 'A%'\" --columns id,name",
        "rows latest companies --diff",
    ],
)
def rows(
    name: Name,
    table: Annotated[str, typer.Argument(callback=not_empty, help="The table. `show` names those that a backup has.")],
    where: Annotated[
        str | None,
        typer.Option(
            "--where", metavar="EXPR", callback=not_empty, help="Only rows that meet this condition, written as in SQL."
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", callback=not_empty, help="Only these columns: a,b,c.")
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="How the live rows differ: only in backup, only live, changed.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=_MOST_ROWS, help="At most this many rows; with --diff, of each kind.")
    ] = 1000,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    database: Database = None,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """Show rows of a table in a backup, or how the live ones differ. Nothing is changed."""
    from backupkit.cli import row_text
    from backupkit.repository import store
    from backupkit.verify import browse

    if as_csv and json:
        raise Refused("--csv and --json are two forms of one result.", hint="Leave one out.")
    settings = of_database(open_to_read(), database)
    where, chosen = where or "", listed(columns or "")
    with listening() as emit:
        backup = store.find(settings, name, emit).name
        if diff:
            found = browse.differing_rows(settings, backup, table, where, chosen, limit, emit)
            if as_csv:
                return out.text(row_text.differences_csv(found))
            document = row_text.differences_document(backup, table, found)
            return out.result(row_text.differences(found, out.screen()), document)
        selected = browse.select_rows(settings, backup, table, where, chosen, limit)
    if as_csv:
        return out.text(row_text.selection_csv(selected))
    document = row_text.selection_document(backup, table, selected)
    out.result(row_text.selection(selected, out.screen()), document)


@commands.command("files", examples=["files latest", "files latest '*.pdf' invoices/2024/"])
def files(
    name: Name,
    pattern: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATTERN",
            callback=not_empty,
            help="What to list: paths, or patterns as in .gitignore. Left out: all.",
        ),
    ] = None,
    tree: Tree = None,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """List the uploads of a backup, and whether each is live: the same, changed or missing."""
    from backupkit.cli import json_, render
    from backupkit.verify.files import list_files

    settings = of_tree(open_to_read(), tree)
    with listening() as emit:
        backup, found = list_files(settings, name, pattern or (), emit)
    out.result(render.files(settings, backup, found, out.screen()), (json_.listed_file(one) for one in found))


@commands.command("verify", examples=["verify latest --test-restore", "verify --all"])
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
            raise Refused(
                "--remote needs --test-restore, and --test-restore then needs a NAME.", hint="Leave out the rest."
            )
        return _verify_remote(remote, name, test_restore)
    settings = open_to_read()
    if name is not None and os.path.isfile(name) and not (settings.dir / name).is_dir():
        return _verify_file(settings, Path(name), test_restore or accept)
    backups = _to_verify(settings, name, every, at_random)
    with listening() as emit:
        done = verify_backups(settings, backups, test_restore, emit)
    lost = _check_points(settings, "" if every else backups[0].name)
    _show_verified(settings, done, every, accept)
    if lost:
        raise Damaged(lost, hint="`rewind` shows what can be restored. The next backup begins a new chain.")


@commands.command("status", examples=["status"])
def status(
    prometheus: Annotated[
        str | None,
        typer.Option(
            "--prometheus",
            metavar="FILE",
            callback=not_empty,
            help="Write metrics for Prometheus into this file. - is stdout.",
        ),
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
    settings = open_to_read()
    found = assess(settings)
    content = metrics.text(found, settings.app_id) if prometheus else ""
    if prometheus and prometheus != "-":
        metrics.write(Path(prometheus).expanduser().absolute(), content)
    if prometheus == "-":
        out.text(content)
    else:
        out.result(render.status(settings, found), json_.status(found))
    raise SystemExit(LEVELS.index(found.level))


@commands.command("history", examples=["history --since 7d --failures"])
def history(
    failures: Annotated[bool, typer.Option("--failures", help="Show only what failed or was interrupted.")] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help='Show what began since then: 7d, yesterday, "10 minutes ago", "14:32", a date.',
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most this many, the newest.")] = 30,
    wide: Wide = False,
    json: Json = False,
) -> None:
    """Show what was done, newest first: when, by whom, with what result, how long it took."""
    from backupkit.cli import render
    from backupkit.model import documents
    from backupkit.model.clock import utc_now
    from backupkit.model.times import beginning
    from backupkit.repository import history as kept

    settings = open_to_read()
    earliest = beginning(since, utc_now(), settings.zone) if since else None
    told = kept.read(settings.dir)
    if told.error:
        say(f"Warning: {told.error}")
    found = [one for one in told.operations if one.has_failed or not failures]
    found = [one for one in found if earliest is None or one.started_at >= earliest]
    out.result(
        render.history(settings, found[:limit], len(found[limit:]), out.screen()),
        (documents.operation(one) for one in found[:limit]),
    )


@commands.command("report", examples=["report --output report.html"])
def report(
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            callback=not_empty,
            help="A bare name goes to the backups folder. - is stdout.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write one HTML page about the backups, to mail or to serve."""
    from backupkit.cli import json_
    from backupkit.monitoring.report_facts import DEFAULT_FILE, report_path, write_report
    from backupkit.monitoring.report_facts import report as gather
    from backupkit.web.report import page

    if json and output is not None:
        raise Refused("With --json what the page says goes to stdout.", hint="Leave out --output.")
    settings = open_to_read()
    if json:
        return out.document(json_.report(gather(settings)))
    if output is None:
        output = DEFAULT_FILE if sys.stdout.isatty() else "-"  # HTML is of no use on a terminal
    path = report_path(settings, output) if output != "-" else None
    content = page(settings, gather(settings))
    if path is None:
        return out.text(content)
    write_report(path, content)
    out.lines([f"The report is {path}."])


@commands.command("ui", examples=["ui"])
def ui() -> None:
    """Open the terminal interface: see that the data is safe, make backups, restore."""
    from backupkit.config.extras import from_extra

    with from_extra("ui", "The terminal interface"):
        from backupkit.ui.window import BackupApp
    _require_terminal()
    BackupApp(open_to_read()).run()


@commands.command("web", examples=["web", "web --set-password"])
def web(
    host: Annotated[
        str, typer.Option("--host", help="The address to serve the pages at; 127.0.0.1 is this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0: any that is free.")] = 8765,
    set_password: Annotated[
        bool, typer.Option("--set-password", help="Set the password, sign everybody out, and end.")
    ] = False,
    viewer: Annotated[
        bool, typer.Option("--viewer", help="With --set-password: that of an account that only looks.")
    ] = False,
) -> None:
    """Serve pages for a browser: see that the data is safe, make backups, restore."""
    from backupkit.config.extras import from_extra

    with from_extra("web", "The pages for a browser"):
        from backupkit.web import access, server, site
    if viewer and not set_password:
        raise Refused("--viewer goes with --set-password.", hint="`web --set-password --viewer`")
    settings = open_to_read()
    known = access.Access(settings)
    if set_password:
        return _set_password(known, "viewer" if viewer else "owner")
    outside = os.environ.get("BACKUP_HOST_ADDRESS", "")
    with server.listen(host, port) as listening_at:
        address = server.address(outside or host, listening_at.getsockname()[1])
        if known.has_password():
            say("Open this address in a browser. Ctrl-C ends it.")
            out.text(f"{address}\n")
        else:
            say("Open this address in a browser. It lets one browser in, once. Ctrl-C ends it.")
            out.text(f"{address}?token={known.new_link()}\n")
        server.serve(site.Site(settings.app_dir, known), listening_at, settings.web_host or outside or host)


def _list_remote(remote: str) -> None:
    from backupkit.cli import render
    from backupkit.remotes.base import remote_document
    from backupkit.remotes.pull import list_remote
    from backupkit.repository import store

    settings = open_to_read()
    with listening_for_warnings() as emit:
        found = list_remote(settings, remote, emit)
    here = {one.name: one.metadata.created_at if one.metadata else None for one in store.all_backups(settings)}
    out.result(render.remote_listing(settings, remote, found, here, out.screen()), map(remote_document, found))


def _verify_remote(remote: str, name: str | None, test_restore: bool) -> None:
    from backupkit.cli import json_
    from backupkit.remotes.pull import prove_remote, verify_remote
    from backupkit.repository import store

    settings = open_to_read()
    with listening_for_warnings() as emit:
        if test_restore:
            done = prove_remote(settings, name or store.LATEST, remote, emit)
        else:
            verify_remote(settings, remote, emit)
    if test_restore:
        return _show_verified(settings, done, False, False)
    out.result([f"{remote}: sound, as far as it can check."], json_.remote_verified(remote))


def _to_verify(settings: Settings, name: str | None, every: bool, at_random: bool) -> list[Backup]:
    from backupkit.repository import store
    from backupkit.verify.verify import backup_at, choose_for_test

    if every:
        return store.all_backups(settings)
    if at_random:
        return [choose_for_test(settings)]
    if name is None:
        return [store.newest(settings)]
    if os.sep in name and store.is_backup(Path(name).absolute()):
        return [backup_at(settings, Path(name))]
    if os.sep in name:
        raise NoSuchBackup(
            f"There is no file and no backup at {Path(name).absolute()}.", hint="`list` shows the backups."
        )
    with listening() as emit:
        return [store.find(settings, name, emit)]


def _verify_file(settings: Settings, path: Path, too_much: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.verify.verify import verify_file

    if too_much:
        raise Refused(f"{path} is a database file, not a backup.", hint="It can be checked: leave out that option.")
    with listening() as emit:
        found = verify_file(settings, path.absolute(), emit)
    out.result(render.verified_file(found), json_.verified_file(found))
    if found.flaws:
        raise Damaged(f"{path} is damaged: {found.flaws[0].text}.", hint="Try a backup: `list`.")


def _check_points(settings: Settings, only: str) -> str:
    """Check the points of rewind of this backup, or of all; print each that is lost, and return how many, in words."""
    from backupkit.rewind import moments
    from backupkit.rewind.chain import counted_lost

    with listening() as emit:
        lost = moments.check(settings, emit, only)
    for one in lost:
        what = "may not come back" if one.moment else "cannot be restored"
        say(f"The point {one.name} after {one.chain} {what}: {one.why.rstrip('.')}.")
    return f"In {settings.dir}: {counted_lost(lost)}." if lost else ""


def _show_verified(settings: Settings, done: list[Verified], every: bool, accept: bool) -> None:
    from backupkit.cli import json_, render
    from backupkit.retention.prune import accept as accept_backup
    from backupkit.verify.verify import refuse_bad

    found = [json_.verified(one) for one in done]
    out.result(render.verified(settings, done), found if every else found[0])
    refuse_bad(settings, done)
    for one in done if accept else ():
        with listening() as emit:
            accept_backup(settings, one.backup.name, emit)
        what = "is accepted: its anomalies are intended" if one.backup.unusual else "has nothing unusual to accept"
        say_notice(f"{one.backup.name} {what}.")
    end_with_warnings(any(one.warnings for one in done))


def _set_password(known: Access, role: Role) -> None:
    password = ask_secret(f"Password of the {role}", True) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    known.set_password(role, password)
    say(f"The password of the {role} is set. Everybody has to sign in again.")


def _require_terminal() -> None:
    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("The terminal interface needs a terminal.", hint="`status` and `list` do without.")
