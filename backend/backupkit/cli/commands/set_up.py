"""Commands for the set-up: diagnosis, settings, a test notification, the demo."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from backupkit.cli import session
from backupkit.cli.console import listening, say, say_notice
from backupkit.cli.options import ExpectLoss, Json, Quiet, Wide, not_empty
from backupkit.cli.output import out
from backupkit.cli.program import CommandGroup
from backupkit.cli.session import load, settings_folder
from backupkit.model.errors import ExitCode, Refused

if TYPE_CHECKING:
    from backupkit.config.editor import Changed

commands = CommandGroup("Set up")
_config = CommandGroup()


@commands.command("doctor", examples=["doctor"])
def doctor(
    at_start: Annotated[
        bool, typer.Option("--at-start", help="Look at SQLite and the file system only, as a container's start does.")
    ] = False,
    json: Json = False,
) -> None:
    """Diagnose this set-up, and name the command for each problem."""
    from backupkit.cli import json_, render
    from backupkit.monitoring import doctor as diagnosis

    settings = load()
    with listening() as emit:
        found = diagnosis.at_start(settings) if at_start else diagnosis.examine(settings, emit)
    out.result(render.findings(found), (json_.finding(one) for one in found))
    if any(finding.level == "wrong" for finding in found):
        raise SystemExit(ExitCode.FAILED)


@_config.typer.callback(invoke_without_command=True)
def config(ctx: typer.Context, wide: Wide = False, json: Json = False) -> None:
    """Show the settings in force, and where each comes from."""
    from backupkit.cli import json_, render
    from backupkit.config.deployment import unseen_variables
    from backupkit.config.settings import origins

    if ctx.invoked_subcommand:
        return
    settings = load()
    if unseen := unseen_variables(os.environ):
        say_notice(f"The compose file sets {', '.join(unseen)}, and that is not in force here: `doctor` says why.")
    values = {name: (getattr(settings, name), origin) for name, origin in origins(settings).items()}
    out.result(render.config(values, out.screen()), json_.config(values), versioned=False)


@_config.command("init", examples=["config init"])
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
        return out.text(template(settings_folder()))
    path = begin_file(settings_folder())
    out.result([f"{path} is there, with every setting commented out."], json_.settings_file(path), of_work=True)


@_config.command("set", examples=["config set timezone Europe/Berlin", "config set keep_daily 14"])
def config_set(
    key: Annotated[str, typer.Argument(callback=not_empty, help="The setting: timezone or BACKUP_TIMEZONE.")],
    value: Annotated[str, typer.Argument(help="The value. Several have spaces between them.")],
    json: Json = False,
) -> None:
    """Set a value in backup.toml. The rest of the file stays as it is."""
    from backupkit.config.editor import set_value

    _show_changed(set_value(settings_folder(), key, value))


@_config.command("unset", examples=["config unset timezone"])
def config_unset(
    key: Annotated[str, typer.Argument(callback=not_empty, help="The setting: timezone or BACKUP_TIMEZONE.")],
    json: Json = False,
) -> None:
    """Remove a value from backup.toml, so that the default applies."""
    from backupkit.config.editor import unset_value

    _show_changed(unset_value(settings_folder(), key))


@_config.command("schema", examples=["config schema"])
def config_schema() -> None:
    """Print a JSON schema of backup.toml, for editors."""
    from backupkit.cli import json_
    from backupkit.config.schema import json_schema

    out.text(f"{json_.text(json_schema(), versioned=False)}\n")


@commands.command("notify-test", examples=["notify-test"])
def notify_test(json: Json = False) -> None:
    """Send a test message to every notification address."""
    from backupkit.cli import json_, render
    from backupkit.monitoring.notify import messages

    deliveries = messages.send_test(load())
    out.result(render.deliveries(deliveries), (json_.delivery(one) for one in deliveries))
    if any(one.error for one in deliveries):
        raise SystemExit(ExitCode.FAILED)


@commands.command("demo", examples=["demo"])
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Keep the throw-away data, and say where it is.")] = False,
) -> None:
    """Play a whole story on throw-away data: app, backup, disaster, restore, proof."""
    examples = session.script.parent.parent / "examples"
    if not (examples / "demo").is_dir():
        raise Refused(
            f"There is no demo in {examples}: the toolkit's repository has it.",
            hint="Clone the repository, then type there: ./backup.sh demo",
        )
    sys.path.insert(0, str(examples))
    from demo.story import tell_story

    tell_story(session.script, keep)


@commands.command("update", examples=["update", "update --dry-run"])
def update(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Build or pull the image and rehearse its migrations; change nothing.")
    ] = False,
    expect_loss: ExpectLoss = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Update the app: new image, rehearsal, backup, migrations, health check. If one fails, go back."""
    raise Refused(
        "update builds images and starts services, so it works on the host, beside the compose file.",
        hint="Type there: ./backup.sh update",
    )


def _show_changed(done: Changed) -> None:
    from backupkit.cli import json_, render

    out.result(render.changed(done), json_.setting(done), of_work=True)
    if done.overridden_by:
        say(f"{done.overridden_by} in the environment overrides this.")


commands.add_group("config", _config, examples=["config", "config set timezone Europe/Berlin"])
