"""Run the app's own code in a separate process: pointed to one database file, kept from the live one, with a deadline.

What it prints goes to our listener, never to our stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from backupkit.config.alembic_setup import app_python, ini_option
from backupkit.config.settings import Settings
from backupkit.fs import process, scratch
from backupkit.model.events import EventListener, Notice
from backupkit.model.names import printable

# Set while the toolkit runs the app's code: the guard in an app's env.py then makes no backup of its own.
REHEARSAL = "BACKUP_REHEARSAL"
_FORBIDDEN = "BACKUP_REHEARSAL_FORBIDS"
_GUARD = Path(__file__).with_name("app_guard.py")
# A path with other characters means another file, or two words, in some forms of URLs and commands.
_PLAIN = re.compile(r"[A-Za-z0-9_./+@,-]+")
_SQLITE_URL = re.compile(r"(sqlite(?:\+\w+)?):")


class AppCodeFailed(Exception):
    """An error of the app's code: it raised, could not be run, or did not end in time. The caller words the message.

    `missing` is a package that it lacks; `refused` is what it was kept from, in the words of app_guard.py.
    """

    def __init__(self, reason: str, missing: str = "", refused: str = "") -> None:
        super().__init__(reason)
        self.missing, self.refused = missing, refused


class Ended(Struct, frozen=True):
    """The exit code and the output of a process."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line it printed, on stderr if it printed something there."""
        lines = [line.strip() for text in (self.out, self.err) for line in text.splitlines() if line.strip()]
        return printable(lines[-1]) if lines else "it said nothing"


class Target(Struct, frozen=True):
    """The database that the app's code is pointed to, at a path that every form of URL and command can hold."""

    settings: Settings
    path: Path

    def url(self, before: str = "") -> str:
        """Return its URL, with the driver of the URL `before`; else of the first setting or variable that names one."""
        return f"{self._scheme(before)}:///{self.path}"

    def _scheme(self, before: str) -> str:
        setup = self.settings.alembic
        told = [before, ini_option(setup, "sqlalchemy.url") if setup else ""]
        told += [os.environ.get(name, "") for name in ("DATABASE_URL", *dict(self.settings.variables))]
        told += [os.environ.get("BACKUP_DATABASE", "")]
        return next((match[1] for one in told if (match := _SQLITE_URL.match(one))), "sqlite")

    def environment(self) -> dict[str, str]:
        """Return every variable by which the app may find its database."""
        before = os.environ.get("BACKUP_DATABASE", "")
        told = {
            "BACKUP_DATABASE": self.url(before) if "://" in before else str(self.path),
            "DATABASE_URL": self.url(os.environ.get("DATABASE_URL", "")),
        }
        return told | {name: self._variable(name, text) for name, text in self.settings.variables}

    def _variable(self, name: str, text: str) -> str:
        before = os.environ.get(name, "")
        if text:
            return self.filled(text, before)
        return self.url(before) if "://" in before or not before else str(self.path)

    def filled(self, text: str, before: str = "") -> str:
        """Return the text with the database in place of `{url}`, `{path}` and `{folder}`."""
        values = {"{url}": self.url(before), "{path}": str(self.path), "{folder}": str(self.path.parent)}
        return re.sub(r"\{(?:url|path|folder)\}", lambda match: values[match[0]], text)


class Workshop(Struct, frozen=True):
    """What the app's code runs with: its target, and variables that point to it and keep it from the live data."""

    target: Target
    environment: dict[str, str]


@contextlib.contextmanager
def target(settings: Settings, database: Path) -> Iterator[Target]:
    """Yield the database at its own path if that is plain, else at a symbolic link with a plain path."""
    if _PLAIN.fullmatch(str(database)):
        yield Target(settings, database)
        return
    with scratch.folder() as folder:
        yield Target(settings, _link_database(folder / "data", database.name, database))


@contextlib.contextmanager
def workshop(settings: Settings, database: Path | None, uploads: Path | None = None) -> Iterator[Workshop]:
    """Yield a workshop for the live database, a copy, or none.

    In the last two cases Python code cannot open the live database, nor change the live uploads; `uploads` is their
    copy, if there is one. A copy of the database is reached by a symbolic link: an app that also writes to the
    database's folder leaves nothing beside it.
    """
    is_live = database == settings.database
    with scratch.folder() as folder:
        is_plain = is_live and _PLAIN.fullmatch(str(database))
        path = settings.database if is_plain else _link_database(folder / "data", settings.database.name, database)
        target = Target(settings, path)
        environment = {**os.environ, **target.environment(), REHEARSAL: "1"}
        if not is_live:
            environment |= _guard_variables(folder / "guard", settings)
        if uploads:
            environment["BACKUP_UPLOADS"] = str(uploads)
        yield Workshop(target, environment)


def _link_database(folder: Path, name: str, database: Path | None) -> Path:
    """Link to the database and return a plain path; also link its own name, for an app that gets only the folder."""
    folder.mkdir()
    names = [name] if _PLAIN.fullmatch(name) else [name, "database.db"]
    if database:
        for one in names:
            (folder / one).symlink_to(database)
    return folder / names[-1]


def _guard_variables(folder: Path, settings: Settings) -> dict[str, str]:
    """Return the variables that keep every Python process from the live database and uploads."""
    folder.mkdir()
    shutil.copyfile(_GUARD, folder / "sitecustomize.py")
    search = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    uploads = [str(part.uploads) for part in settings.parts if part.uploads]
    return {"PYTHONPATH": search, _FORBIDDEN: json.dumps([str(settings.database), uploads])}


def run(
    command: Sequence[str], folder: Path, environment: dict[str, str], timeout: float, lock: int | None = None
) -> Ended:
    """Run the command in that folder and return its result; raise `AppCodeFailed` if it cannot start or is too slow.

    The child inherits the descriptor `lock`, so that the lock lasts until the command ends even if this process is
    killed.
    """
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=() if lock is None else (lock,),
            start_new_session=True,
        )
    except OSError as error:
        raise AppCodeFailed(f"{command[0]} cannot be run in {folder}: {error.strerror}", command[0]) from error
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise AppCodeFailed(f"it did not end within {timeout:g} s, and was ended") from error
    finally:
        process.end_group(child)
    return Ended(child.returncode, out, err)


def python(settings: Settings) -> list[str]:
    """Return the command of the app's Python."""
    return app_python(settings.python)


def is_own_python(settings: Settings) -> bool:
    """Return whether the app's Python is the one that runs this."""
    return python(settings) == app_python("")


def say(lines: str, emit: EventListener) -> None:
    """Emit each line that the app's code printed, as a notice."""
    for line in lines.splitlines():
        if line.strip():
            emit(Notice(printable(line)))
