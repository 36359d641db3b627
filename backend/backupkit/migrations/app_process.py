"""The app's own code, in a process of its own: led to one database file, kept from the live one, with a deadline.

What it prints reaches our listener, never our stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backupkit.config.alembic_setup import app_python, ini_option
from backupkit.config.settings import Settings
from backupkit.fs import process, scratch
from backupkit.model.events import EventListener, Notice
from backupkit.model.names import printable

# Set while the toolkit runs the app's code: the guard in an app's env.py then makes no backup of its own.
REHEARSAL = "BACKUP_REHEARSAL"
_FORBIDDEN = "BACKUP_REHEARSAL_FORBIDS"
_GUARD = Path(__file__).with_name("app_guard.py")
# A path with other characters is another file, or two words, to some way of writing a URL or a command.
_PLAIN = re.compile(r"[A-Za-z0-9_./+@,-]+")
_SQLITE_URL = re.compile(r"(sqlite(?:\+\w+)?):")


class AppCodeFailed(Exception):
    """The app's own code raised, could not be run, or did not end in time; whoever asked makes a sentence of it.

    `missing` is a package that it lacks; `is_refused` says that it wanted the live database.
    """

    def __init__(self, reason: str, missing: str = "", is_refused: bool = False) -> None:
        super().__init__(reason)
        self.missing, self.is_refused = missing, is_refused


@dataclass(frozen=True)
class Ended:
    """A process that ended: its exit code, and what it said."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line it said, on stderr where it said something there."""
        lines = [line.strip() for text in (self.out, self.err) for line in text.splitlines() if line.strip()]
        return printable(lines[-1]) if lines else "it said nothing"


@dataclass(frozen=True)
class Target:
    """The database that the app's code is led to, at a path that every way of writing it can hold."""

    settings: Settings
    path: Path

    def url(self, before: str = "") -> str:
        """Its URL, with the driver of what stood there before; else of whatever names one."""
        return f"{self._scheme(before)}:///{self.path}"

    def _scheme(self, before: str) -> str:
        setup = self.settings.alembic
        told = [before, ini_option(setup, "sqlalchemy.url") if setup else ""]
        told += [os.environ.get(name, "") for name in ("DATABASE_URL", *dict(self.settings.variables))]
        told += [os.environ.get("BACKUP_DATABASE", "")]
        return next((match[1] for one in told if (match := _SQLITE_URL.match(one))), "sqlite")

    def environment(self) -> dict[str, str]:
        """Every variable by which the app may find its database."""
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
        """The text, with the database in place of `{url}`, `{path}` and `{folder}`."""
        values = {"{url}": self.url(before), "{path}": str(self.path), "{folder}": str(self.path.parent)}
        return re.sub(r"\{(?:url|path|folder)\}", lambda match: values[match[0]], text)


@dataclass(frozen=True)
class Workshop:
    """A temporary folder of ours from which the app's code runs: its target, and what keeps it from the live data."""

    target: Target
    environment: dict[str, str]


@contextlib.contextmanager
def target(settings: Settings, database: Path) -> Iterator[Target]:
    """That database, at its own path if this is plain, else at a link with a plain one."""
    if _PLAIN.fullmatch(str(database)):
        yield Target(settings, database)
        return
    with scratch.folder() as folder:
        yield Target(settings, _linked(folder / "data", database.name, database))


@contextlib.contextmanager
def workshop(settings: Settings, database: Path | None) -> Iterator[Workshop]:
    """A workshop for one database: the live one, or a copy, or none. From the last two the live one is out of reach.

    A copy is led to by a link: an app that also takes its folder for its own leaves nothing beside the copy.
    """
    is_live = database == settings.database
    with scratch.folder() as folder:
        is_plain = is_live and _PLAIN.fullmatch(str(database))
        path = settings.database if is_plain else _linked(folder / "data", settings.database.name, database)
        target = Target(settings, path)
        environment = {**os.environ, **target.environment(), REHEARSAL: "1"}
        if not is_live:
            environment |= _guarded(folder / "guard", settings.database)
        yield Workshop(target, environment)


def _linked(folder: Path, name: str, database: Path | None) -> Path:
    """A path in plain characters; the database is at its own name too, for an app that is told the folder only."""
    folder.mkdir()
    names = [name] if _PLAIN.fullmatch(name) else [name, "database.db"]
    if database:
        for one in names:
            (folder / one).symlink_to(database)
    return folder / names[-1]


def _guarded(folder: Path, *forbidden: Path) -> dict[str, str]:
    """The variables with which every Python that is started refuses to open those databases."""
    folder.mkdir()
    shutil.copyfile(_GUARD, folder / "sitecustomize.py")
    search = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": search, _FORBIDDEN: json.dumps([str(path) for path in forbidden])}


def run(
    command: Sequence[str], folder: Path, environment: dict[str, str], timeout: float, lock: int | None = None
) -> Ended:
    """What came of the command in that folder; `AppCodeFailed` where it cannot be started or takes too long.

    `lock` is handed on, so that the lock lasts as long as the command does even where this process is killed.
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
    """The command that is the app's Python."""
    return app_python(settings.python)


def is_own_python(settings: Settings) -> bool:
    """Whether the app's Python is the one that runs this."""
    return python(settings) == app_python("")


def say(lines: str, emit: EventListener) -> None:
    """Each line that the app's code printed, as a notice."""
    for line in lines.splitlines():
        if line.strip():
            emit(Notice(printable(line)))
