"""Commands for copies off the machine: remotes, archives, the recovery sheet."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backupkit.cli.console import ask, ask_secret, at_terminal, listening
from backupkit.cli.errors import end_with_warnings
from backupkit.cli.options import Json, Name, OldForce, Quiet, RemoteName, Trust, Wide, Yes, not_empty
from backupkit.cli.output import out
from backupkit.cli.program import CommandGroup
from backupkit.cli.session import listening_for_warnings, open_to_read, open_to_write
from backupkit.model.errors import Declined, Refused

if TYPE_CHECKING:
    from backupkit.config.settings import Settings

commands = CommandGroup("Copies elsewhere")


@commands.command("push", examples=["push", "push latest --remote offsite"])
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

    settings = open_to_write(work="push")
    if not yes and not force:
        _require_agreement_to_git(settings, remote)
    with listening_for_warnings() as emit:
        done = push_backups(settings, name, remote, emit)
    out.result(render.pushed(done), (json_.pushed(one) for one in done))
    refuse_failed(done)


@commands.command("pull", examples=["pull latest --remote offsite"])
def pull(name: Name, remote: RemoteName = None, trust: Trust = False, quiet: Quiet = False, json: Json = False) -> None:
    """Fetch a backup from a remote, and compare every byte."""
    from backupkit.cli import json_, render
    from backupkit.remotes.pull import pull_backup, the_remote

    settings = open_to_write(work="pull")
    with listening_for_warnings() as emit:
        done = pull_backup(settings, name, the_remote(settings, remote), emit, trust=trust)
    out.result(render.pulled(settings.deployment, done), json_.backup(done.backup))


@commands.command("remotes", examples=["remotes", "remotes --init offsite"])
def remotes(
    init: Annotated[
        str | None,
        typer.Option("--init", metavar="REMOTE", callback=not_empty, help="Make this remote ready for the first push."),
    ] = None,
    wide: Wide = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Ask every remote: can it be used, what is missing there, and is it 3-2-1?"""
    from backupkit.cli import json_, render
    from backupkit.remotes.base import refuse_without
    from backupkit.remotes.registry import look_at_remotes, prepare_remote, refuse_unreachable

    settings = open_to_read()
    with listening_for_warnings() as emit:
        if init is not None:
            prepare_remote(settings, init, emit)
        refuse_without(settings)
        found = look_at_remotes(settings, emit)
    out.result(render.copies(settings, found, out.screen()), json_.copies(found))
    refuse_unreachable(found, only=init)
    if init is not None:  # the first push is still to come, and other remotes were not asked for
        return
    end_with_warnings(any(one.behind for one in found.remotes))


@commands.command("export", examples=["export latest today.tar.zst"])
def export_one(
    name: Name,
    file: Annotated[
        str, typer.Argument(callback=not_empty, help="A bare name goes to the backups folder. - is stdout.")
    ],
    recipient: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient", "-r", metavar="KEY", help="Encrypt to this public key, age1…; may be given several times."
        ),
    ] = None,
    recipients_file: Annotated[
        list[str] | None,
        typer.Option(
            "--recipients-file", metavar="FILE", callback=not_empty, help="Encrypt to the public keys in this file."
        ),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write one backup as one file: .tar.zst, .tar.gz or .tar; with .age at the end it is encrypted."""
    from backupkit.archive import export
    from backupkit.cli import json_, render

    settings = open_to_write()
    if file == "-" and json:
        raise Refused("With - the archive itself goes to stdout.", hint="Leave out --json, or name a file.")
    told = os.environ.get("BACKUP_HOST_FILE", "") if file == "-" else file
    closing = export.recipients_for(
        settings,
        told,
        recipient or (),
        map(Path, recipients_file or ()),
        lambda: ask_secret("Passphrase for the export", True),
    )
    with listening_for_warnings() as emit:
        if file == "-":
            form = told or (".tar.zst.age" if closing else ".tar.zst")
            with out.stream() as stdout:
                export.export_to(settings, name, stdout, form, closing, emit)
            return
        done = export.export_backup(settings, name, export.export_path(settings, file), closing, emit)
    out.result(render.exported(done), json_.exported(done), of_work=True)


@commands.command("import", examples=["import today.tar.zst --name from_export"])
def import_one(
    file: Annotated[
        str, typer.Argument(callback=not_empty, help="A bare name is a file of the backups folder. - is stdin.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="The name of the backup here. Left out: the archive's.")
    ] = None,
    identity: Annotated[
        list[str] | None,
        typer.Option(
            "--identity",
            "-i",
            metavar="FILE",
            callback=not_empty,
            help="The file with the secret key, as age-keygen writes it; may be given several times.",
        ),
    ] = None,
    trust: Trust = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Import a backup from a file that `export` or tar made."""
    from backupkit.archive import export
    from backupkit.cli import json_, render

    settings = open_to_write()
    keys = export.identities_for(settings, map(Path, identity or ()), lambda: ask_secret("Passphrase of the archive"))
    source = sys.stdin.buffer if file == "-" else export.export_path(settings, file)
    with listening() as emit:
        done = export.import_backup(settings, source, keys, name, trust, emit)
    out.result(render.imported(settings.deployment, done), json_.created(done))
    end_with_warnings(done.warnings)


@commands.command("recovery-kit", examples=["recovery-kit recovery.md"])
def recovery_kit(
    file: Annotated[
        str | None,
        typer.Argument(
            callback=not_empty, help="A new file. A bare name goes to the backups folder. Left out, or -: stdout."
        ),
    ] = None,
) -> None:
    """Write a sheet to print: how to start again on a new machine. It holds no secret."""
    from backupkit.cli.host import git_facts, host
    from backupkit.model.names import printable_text
    from backupkit.monitoring.recovery_kit import recovery_kit as gather
    from backupkit.monitoring.recovery_kit import sheet_path, write_sheet
    from backupkit.web.report import sheet

    settings = open_to_read()
    path = sheet_path(settings, file) if file and file != "-" else None
    lines = sheet(gather(settings), host(), git_facts())
    if path is None:
        out.text("".join(f"{printable_text(line)}\n" for line in lines))  # the same text as in a file
        return
    write_sheet(path, "".join(f"{line}\n" for line in lines))
    out.lines([f"The sheet is {path}. Keep a copy of it away from this machine."])


def _require_agreement_to_git(settings: Settings, remote: str | None) -> None:
    """Ask before a push to git, which many people may be able to read; raise `Declined` or `Refused` without a yes."""
    tables = {name: table for name, table in settings.remotes.items() if remote in (None, name) and table.type == "git"}
    if tables and not at_terminal():
        raise Refused(
            "A push to git asks first, and there is no terminal to ask on; nothing was pushed.",
            hint="Add --yes to push. `run` and BACKUP_PUSH_AFTER_BACKUP need no answer.",
        )
    if not all(ask(f"Push to {name}, {table.place}?") for name, table in tables.items()):
        raise Declined("Nothing was pushed.")
