"""The start of a command: drop root's rights, read the settings, look for an interrupted restore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backupkit.cli.console import at_terminal, listening, say_notice
from backupkit.cli.errors import end_with_warnings
from backupkit.cli.output import out
from backupkit.model.errors import Refused
from backupkit.model.events import EventListener, Warned, collecting
from backupkit.model.names import printable
from backupkit.monitoring.notify import run_report

if TYPE_CHECKING:
    from backupkit.config.settings import Settings
    from backupkit.restore.journal import Journal

script = Path(__file__).resolve().parents[2] / "backup_restore.py"
"""The path of the program, for code that starts it again."""


def open_to_read() -> Settings:
    """Return the settings for a command that only reads; warn of an unfinished restore, and leave it as it is."""
    from backupkit.restore import unfinished

    settings = load()
    if what := unfinished.describe(settings):
        with listening() as emit:
            emit(Warned(f"{what} To finish it: {settings.deployment.tool('recover')}"))
    return settings


def of_database(settings: Settings, name: str | None) -> Settings:
    """Return the settings of the named database, the main one by default. Raise `Refused` for an unknown name.

    If there are several and none is named, say which one is used.
    """
    from backupkit.model.backup import MAIN_DATABASE

    if name is None and settings.databases:
        say_notice(f"Using the database {MAIN_DATABASE}. Another one: --database {' or '.join(settings.databases)}")
    return _of_part(settings, "This app has no database", name, (MAIN_DATABASE, *settings.databases))


def of_tree(settings: Settings, name: str | None) -> Settings:
    """Return the settings of the named folder, the uploads by default. Raise `Refused` for an unknown name."""
    from backupkit.model.backup import UPLOADS_FOLDER

    return _of_part(settings, "This app has no folder", name, (UPLOADS_FOLDER, *settings.trees))


def _of_part(settings: Settings, refusal: str, name: str | None, names: Sequence[str]) -> Settings:
    """Return the settings of the named one of `names`, the first by default; raise `Refused` for another name."""
    if name in (None, names[0]):
        return settings
    place = settings.at(name) if name in names else None
    if place is None:
        raise Refused(f"{refusal} {printable(name)}.", hint=f"There are: {', '.join(names)}.")
    return place


def open_for(work: str, dry_run: bool) -> Settings:
    """Return the settings for the command named `work`: to read only, if it is a dry run."""
    return open_to_read() if dry_run else open_to_write(work)


def open_to_write(work: str = "") -> Settings:
    """Return the settings after finishing an interrupted restore; `work` names the command whose end to report."""
    from backupkit.cli.rights import refuse_to_guess_owner

    settings = load()
    refuse_to_guess_owner(settings.database, settings.dir)
    out.is_of_work = True
    if work:
        run_report.begin(settings, work, watched=at_terminal() and work != "run")
    finish_interrupted(settings)
    return settings


def finish_interrupted(settings: Settings) -> Journal | None:
    """Finish an interrupted restore and return its journal, or None if there was none.

    Its warnings make the command end with 3, whatever comes after.
    """
    from backupkit.restore.recovery import recover

    with listening_for_warnings() as emit:
        return recover(settings, emit)


@contextmanager
def listening_for_warnings() -> Iterator[EventListener]:
    """Yield a listener, as `listening` does; a warning makes the command end with 3."""
    warnings: list[str] = []
    with listening() as emit:
        yield collecting(emit, warnings)
    end_with_warnings(warnings)


def load(before: Settings | None = None) -> Settings:
    """Return the settings, read as the owner of the data; open the log, and hide their secrets in it.

    If they were read `before`, keep the log open unless its file changed, and hide the old secrets too.
    """
    from backupkit.cli.rights import work_as_owner
    from backupkit.config.settings import load_settings
    from backupkit.monitoring import log

    work_as_owner(_app_dir())
    settings = load_settings(_app_dir())
    log.mask((*(before.secrets if before else ()), *settings.secrets))
    if settings.log_file and settings.log_file != (before and before.log_file):
        log.open_log(settings.log_file, settings.log_format)
    return settings


def settings_folder() -> Path:
    """Return the folder of `backup.toml`, for commands that edit it even if it cannot be loaded."""
    from backupkit.cli.rights import edit_as_owner
    from backupkit.config.settings import app_folder

    edit_as_owner(_app_dir())
    return app_folder(_app_dir())


def _app_dir() -> Path:
    """Return the script's folder if it was copied into an app, the current folder if it was installed as a package."""
    here = script.parent
    return Path.cwd() if here.name in ("site-packages", "dist-packages") else here
